#include "minwm/nn/pointwise.h"

#include <torch/torch.h>

#include "cpu/dispatch.h"

namespace minwm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FusedGatedAdd : torch::autograd::Function<FusedGatedAdd> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& y,
                            const at::Tensor& gate) {
    const at::Tensor base = x.contiguous(), added = y.contiguous(), factor = gate.contiguous();
    const int64_t width = x.size(3), each = x.size(2), groups = x.size(0) * x.size(1);
    at::Tensor out = at::empty_like(base);
    cpu::with_type(y.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(groups, each * width, [&](int64_t begin, int64_t end) {
        cpu::gated_add(cpu::data<float>(base), cpu::data<T>(added), cpu::data<float>(factor),
                       cpu::data<float>(out), begin, end, each, width);
      });
    });
    context->save_for_backward({added, factor});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &y = saved[0], &gate = saved[1];
    const at::Tensor dout = gradients[0].contiguous();
    const int64_t width = y.size(3), each = y.size(2), groups = y.size(0) * y.size(1);
    at::Tensor dy = at::empty_like(y), dgate = at::empty_like(gate);
    cpu::with_type(y.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(groups, each * width, [&](int64_t begin, int64_t end) {
        cpu::gated_add_backward(cpu::data<float>(dout), cpu::data<T>(y), cpu::data<float>(gate),
                                cpu::data<T>(dy), cpu::data<float>(dgate), begin, end, each, width);
      });
    });
    return {gradients[0], dy, dgate};
  }
};

struct FusedGelu : torch::autograd::Function<FusedGelu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input) {
    const at::Tensor x = input.contiguous();
    at::Tensor y = at::empty_like(x);
    cpu::with_type(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(x.numel(), 1, [&](int64_t begin, int64_t end) {
        cpu::gelu(cpu::data<T>(x), cpu::data<T>(y), begin, end);
      });
    });
    context->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor x = context->get_saved_variables()[0], dy = gradients[0].contiguous();
    at::Tensor dx = at::empty_like(x);
    cpu::with_type(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(x.numel(), 1, [&](int64_t begin, int64_t end) {
        cpu::gelu_backward(cpu::data<T>(dy), cpu::data<T>(x), cpu::data<T>(dx), begin, end);
      });
    });
    return {dx};
  }
};

}  // namespace

at::Tensor gated_add(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  if (cpu::fused(y) && x.scalar_type() == at::kFloat && gate.scalar_type() == at::kFloat) {
    return FusedGatedAdd::apply(x, y, gate);
  }
  return at::addcmul(x, y.to(x.scalar_type()), gate.unsqueeze(2));
}

at::Tensor gelu(const at::Tensor& x) {
  return cpu::fused(x) ? FusedGelu::apply(x) : at::gelu(x, "tanh");
}

}  // namespace minwm::nn
