#include "minwm/models/codec/causal_conv.h"

#include <cmath>

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

std::vector<int64_t> conv_shape(int64_t in, int64_t out, const std::vector<int64_t>& kernel) {
  std::vector<int64_t> shape = {out, in};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  return shape;
}

/// The last `frames` of a joined buffer, as memory of their own: a view would keep the whole buffer
/// alive between the parts of a stream.
at::Tensor last_frames(const at::Tensor& joined, int64_t frames) {
  return joined.narrow(2, joined.size(2) - frames, frames).clone(at::MemoryFormat::Contiguous);
}

/// The frames before the first one.
at::Tensor start_of(const at::Tensor& x, int64_t frames, VideoPadding padding) {
  const at::Tensor first = x.narrow(2, 0, 1);
  return padding == VideoPadding::kZeros
             ? at::zeros({x.size(0), x.size(1), frames, x.size(3), x.size(4)}, x.options())
             : first.expand({-1, -1, frames, -1, -1});
}

}  // namespace

int64_t FeatureHistory::bytes() const {
  int64_t total = 0;
  for (const at::Tensor& slot : slots) {
    total += slot.defined() ? static_cast<int64_t>(slot.storage().nbytes()) : 0;
  }
  return total;
}

at::Tensor& HistoryPass::next() {
  if (visited_ == slots_.size()) {
    TORCH_INTERNAL_ASSERT(first(), "a stream's history of another network");
    slots_.emplace_back();
  }
  return slots_[visited_++];
}

void HistoryPass::commit() {
  TORCH_INTERNAL_ASSERT(visited_ == slots_.size(), "a stream's history of another network");
  history_.slots = slots_;
  history_.started = true;
}

ConvWeightsImpl::ConvWeightsImpl(int64_t in, int64_t out, const std::vector<int64_t>& kernel)
    : weight(register_parameter("weight", nn::make_parameter(conv_shape(in, out, kernel)))),
      bias(register_parameter("bias", nn::make_parameter({out}))) {}

at::Tensor causal_conv(const at::Tensor& x, const ConvWeights& conv, VideoPadding padding,
                       at::Tensor& past) {
  const at::Tensor& weight = conv->weight;
  const int64_t history = weight.size(2) - 1, rows = weight.size(3) / 2,
                columns = weight.size(4) / 2;
  at::Tensor joined = x.to(weight.scalar_type());
  const bool alone = !past.defined() && x.size(2) == 1 && padding == VideoPadding::kZeros;
  if (history > 0) {
    const at::Tensor before = past.defined() ? past : start_of(joined, history, padding);
    require(
        before.size(0) == x.size(0) && before.size(3) == x.size(3) && before.size(4) == x.size(4),
        "a part of a stream is [{}] here, the parts before it were [{}]: expected the same "
        "batch, height and width",
        fmt::join(x.sizes(), ", "), fmt::join(before.sizes(), ", "));
    const at::Tensor frame = joined;
    joined = at::cat({before, joined}, 2);
    past = last_frames(joined, history);
    if (alone) {
      // Two thirds of the kernel would see zeros only.
      return at::conv3d(frame, weight.narrow(2, history, 1), conv->bias, 1, {0, rows, columns});
    }
  }
  if (padding == VideoPadding::kZeros) {
    return at::conv3d(joined, weight, conv->bias, 1, {0, rows, columns});
  }
  return at::conv3d(at::replication_pad3d(joined, {columns, columns, rows, rows, 0, 0}), weight,
                    conv->bias);
}

at::Tensor pointwise_conv(const at::Tensor& x, const ConvWeights& conv) {
  const at::Tensor& weight = conv->weight;
  return at::conv3d(x.to(weight.scalar_type()),
                    weight.view({weight.size(0), weight.size(1), 1, 1, 1}), conv->bias);
}

at::Tensor channel_norm(const at::Tensor& x, const at::Tensor& gamma) {
  constexpr double kSmallest = 1e-12;
  const int64_t channels = x.size(1);
  const at::Tensor values = x.to(at::kFloat);
  // The backward of this norm takes 0 as the slope at 0, where that of sqrt(sum) is not a number.
  const at::Tensor norm = at::linalg_vector_norm(values, 2, {1}, true).clamp_min(kSmallest);
  const at::Tensor scale =
      gamma.to(at::kFloat).view({1, channels, 1, 1, 1}) * std::sqrt(static_cast<double>(channels));
  return (values / norm).mul_(scale).to(x.scalar_type());
}

at::Tensor frame_pixel_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t batch = q.size(0), frames = q.size(2), height = q.size(3), width = q.size(4);
  const auto rows = [&](const at::Tensor& t) {
    return t.permute({0, 2, 3, 4, 1}).reshape({batch * frames, 1, height * width, t.size(1)});
  };
  return at::scaled_dot_product_attention(rows(q), rows(k), rows(v))
      .view({batch, frames, height, width, v.size(1)})
      .permute({0, 4, 1, 2, 3});
}

}  // namespace minwm::models
