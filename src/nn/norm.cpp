#include "minwm/nn/norm.h"

#include "cpu/dispatch.h"
#include "minwm/nn/parameters.h"

namespace minwm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows are summed in pieces of this many, so that a weight's gradient does not depend on the number
// of threads.
constexpr int64_t kRowsPerPiece = 256;

struct FusedRmsNorm : torch::autograd::Function<FusedRmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    const at::Tensor rows = x.contiguous(), scale = weight.contiguous();
    const int64_t width = x.size(-1), count = x.numel() / width;
    at::Tensor y = at::empty_like(rows), inverse = at::empty({count}, weight.options());
    cpu::with_type(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(count, width, [&](int64_t begin, int64_t end) {
        cpu::rms_norm(cpu::data<T>(rows), width, cpu::data<float>(scale), cpu::data<T>(y),
                      cpu::data<float>(inverse), begin, end, width, static_cast<float>(eps));
      });
    });
    context->save_for_backward({rows, scale, inverse});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
    const at::Tensor dy = gradients[0].contiguous();
    const int64_t width = x.size(-1), count = x.numel() / width;
    const int64_t pieces = (count + kRowsPerPiece - 1) / kRowsPerPiece;
    at::Tensor dx = at::empty_like(x), partial = at::zeros({pieces, width}, weight.options());
    cpu::with_type(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(pieces, kRowsPerPiece * width, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece) {
          cpu::rms_norm_backward(cpu::data<T>(dy), cpu::data<T>(x), width, cpu::data<float>(weight),
                                 cpu::data<float>(inverse), cpu::data<T>(dx),
                                 cpu::data<float>(partial) + piece * width, piece * kRowsPerPiece,
                                 std::min(count, (piece + 1) * kRowsPerPiece), width);
        }
      });
    });
    return {dx, partial.sum(0), at::Tensor()};
  }
};

struct FusedModulatedNorm : torch::autograd::Function<FusedModulatedNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& shift,
                            const at::Tensor& scale, double eps, at::ScalarType out) {
    const at::Tensor rows = x.contiguous(), a = scale.contiguous(), b = shift.contiguous();
    const int64_t width = x.size(3), each = x.size(2), groups = x.size(0) * x.size(1);
    at::Tensor y = at::empty(x.sizes(), x.options().dtype(out));
    at::Tensor mean = at::empty({groups * each}, x.options()), inverse = at::empty_like(mean);
    cpu::with_type(out, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(groups, each * width, [&](int64_t begin, int64_t end) {
        cpu::modulated_norm(cpu::data<float>(rows), cpu::data<float>(b), cpu::data<float>(a),
                            cpu::data<T>(y), cpu::data<float>(mean), cpu::data<float>(inverse),
                            begin, end, each, width, static_cast<float>(eps));
      });
    });
    context->save_for_backward({rows, a, mean, inverse});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1], &mean = saved[2], &inverse = saved[3];
    const at::Tensor dy = gradients[0].contiguous();
    const int64_t width = x.size(3), each = x.size(2), groups = x.size(0) * x.size(1);
    at::Tensor dx = at::empty_like(x), dshift = at::empty_like(scale),
               dscale = at::empty_like(scale);
    cpu::with_type(dy.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(groups, each * width, [&](int64_t begin, int64_t end) {
        cpu::modulated_norm_backward(cpu::data<T>(dy), cpu::data<float>(x), cpu::data<float>(scale),
                                     cpu::data<float>(mean), cpu::data<float>(inverse),
                                     cpu::data<float>(dx), cpu::data<float>(dshift),
                                     cpu::data<float>(dscale), begin, end, each, width);
      });
    });
    return {dx, dshift, dscale, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (cpu::fused(x) && weight.scalar_type() == at::kFloat) {
    return FusedRmsNorm::apply(x, weight, eps);
  }
  const at::Tensor normed = at::rms_norm(x.to(at::kFloat), {x.size(-1)}, {}, eps);
  return normed.to(x.scalar_type()) * weight.to(x.scalar_type());
}

RmsNormImpl::RmsNormImpl(int64_t width, double eps)
    : eps_(eps), weight_(register_parameter("weight", make_parameter({width}, 1))) {}

at::Tensor layer_norm(const at::Tensor& x, double eps) {
  return at::layer_norm(x, {x.size(-1)}, {}, {}, eps);
}

at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps, at::ScalarType out) {
  if (cpu::fused(x) && x.scalar_type() == at::kFloat &&
      (out == at::kFloat || out == at::kBFloat16)) {
    return FusedModulatedNorm::apply(x, shift, scale, eps, out);
  }
  return at::addcmul(shift.unsqueeze(2), layer_norm(x, eps), 1 + scale.unsqueeze(2)).to(out);
}

}  // namespace minwm::nn
