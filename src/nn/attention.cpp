#include "minwm/nn/attention.h"

#include <ATen/ATen.h>

#include <cmath>

namespace minwm::nn {
namespace {

// Up to this many keys two batched products and a softmax beat the fused CPU kernel, whose backward is slow.
constexpr int64_t kPlainKeys = 1024;

}  // namespace

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor qh = q.transpose(1, 2), kh = k.transpose(1, 2), vh = v.transpose(1, 2);
  if (q.is_cpu() && k.size(1) <= kPlainKeys) {
    const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
    const at::Tensor weights = at::matmul(qh * scale, kh.transpose(2, 3)).softmax(-1);
    return at::matmul(weights, vh).transpose(1, 2);
  }
  return at::scaled_dot_product_attention(qh, kh, vh).transpose(1, 2);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const FramePlan& plan,
                  int64_t tokens_per_frame) {
  auto frames = [&](const at::Tensor& x, const FrameRange& range) {
    return x.narrow(1, range.begin * tokens_per_frame, range.size() * tokens_per_frame);
  };
  auto seen = [&](const at::Tensor& x, const std::vector<FrameRange>& ranges) {
    if (ranges.size() == 1) {
      return frames(x, ranges.front());
    }
    std::vector<at::Tensor> parts;
    for (const auto& range : ranges) {
      parts.push_back(frames(x, range));
    }
    return at::cat(parts, 1);
  };
  if (plan.chunks.size() == 1) {
    return attend(q, seen(k, plan.chunks[0].sees), seen(v, plan.chunks[0].sees));
  }
  std::vector<at::Tensor> outputs;
  for (const auto& chunk : plan.chunks) {
    outputs.push_back(attend(frames(q, chunk.frames), seen(k, chunk.sees), seen(v, chunk.sees)));
  }
  return at::cat(outputs, 1);
}

}  // namespace minwm::nn
