#include "minwm/nn/attention.h"

#include <cmath>

#include <torch/torch.h>

#include "cpu/dispatch.h"

namespace minwm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Attention over q [G, N, D], k and v [G, M, D]; the weights are kept for backward, softmax runs
/// in place.
struct PlainAttention : torch::autograd::Function<PlainAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v) {
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(q.size(2))));
    const at::Tensor weights = at::bmm(q, k.transpose(1, 2));
    const int64_t rows = weights.size(0) * weights.size(1), width = weights.size(2);
    cpu::with_type(weights.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(rows, width, [&](int64_t begin, int64_t end) {
        cpu::softmax(cpu::data<T>(weights), scale, begin, end, width);
      });
    });
    context->save_for_backward({q, k, v, weights});
    return at::bmm(weights, v);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &weights = saved[3],
                     &dout = gradients[0];
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(q.size(2))));
    const at::Tensor dv = at::bmm(weights.transpose(1, 2), dout);
    const at::Tensor dscores = at::bmm(dout, v.transpose(1, 2));
    const int64_t rows = weights.size(0) * weights.size(1), width = weights.size(2);
    cpu::with_type(weights.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(rows, width, [&](int64_t begin, int64_t end) {
        cpu::softmax_backward(cpu::data<T>(weights), cpu::data<T>(dscores), scale, begin, end,
                              width);
      });
    });
    return {at::bmm(dscores, k), at::bmm(dscores.transpose(1, 2), q), dv};
  }
};

/// Heads first: q [B, A, N, D]; k, v [B, A, M, D] → [B, A, N, D].
at::Tensor attend_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  // Up to this many keys two batched products and a softmax beat the library's CPU kernel, whose
  // backward is slow.
  if (cpu::fused(q) && k.size(2) <= cpu::kSoftmaxWidth) {
    auto groups = [](const at::Tensor& x) { return x.reshape({-1, x.size(2), x.size(3)}); };
    return PlainAttention::apply(groups(q), groups(k), groups(v)).view(q.sizes());
  }
  return at::scaled_dot_product_attention(q, k, v);
}

}  // namespace

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return attend_heads(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const FramePlan& plan, const FrameRows& rows) {
  const at::Tensor qh = q.transpose(1, 2), kh = k.transpose(1, 2), vh = v.transpose(1, 2);
  const FrameRows query_rows = rows.from(plan.first_query());
  auto frames = [](const at::Tensor& x, const FrameRows& of, const FrameRange& range) {
    return of.of(range) == x.size(2) ? x : x.narrow(2, of.before(range.begin), of.of(range));
  };
  auto seen = [&](const at::Tensor& x, const std::vector<FrameRange>& ranges) {
    if (ranges.size() == 1) {
      return frames(x, rows, ranges.front());
    }
    std::vector<at::Tensor> parts;
    parts.reserve(ranges.size());
    for (const auto& range : ranges) {
      parts.push_back(frames(x, rows, range));
    }
    return at::cat(parts, 2);
  };
  std::vector<at::Tensor> outputs;
  outputs.reserve(plan.chunks.size());
  for (const auto& chunk : plan.chunks) {
    outputs.push_back(attend_heads(frames(qh, query_rows, chunk.frames), seen(kh, chunk.sees),
                                   seen(vh, chunk.sees)));
  }
  return (outputs.size() == 1 ? outputs.front() : at::cat(outputs, 2)).transpose(1, 2);
}

}  // namespace minwm::nn
