#include "minwm/models/codec/wan_vae_blocks.h"

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

constexpr auto kZeros = VideoPadding::kZeros;

/// A module that only owns children under a published prefix.
struct Named : torch::nn::Module {};

/// A convolution within frames, by 3-D convolution with one tap in time: no copy of the video into
/// a batch of frames.
at::Tensor frame_conv(const at::Tensor& x, const ConvWeights& conv, int64_t stride,
                      int64_t padding) {
  return at::conv3d(x.to(conv->weight.scalar_type()), conv->weight.unsqueeze(2), conv->bias,
                    {1, stride, stride}, {0, padding, padding});
}

}  // namespace

WanVaeNormImpl::WanVaeNormImpl(int64_t channels, bool of_frames) {
  std::vector<int64_t> shape = {channels, 1, 1};
  if (!of_frames) {
    shape.push_back(1);
  }
  gamma = register_parameter("gamma", nn::make_parameter(shape, 1));
}

at::Tensor WanVaeNormImpl::activated(const at::Tensor& x) const {
  at::Tensor y =
      forward(x);  // nobody else's: at full size each copy of it is hundreds of megabytes
  return at::silu_(y);
}

WanVaeResBlock::WanVaeResBlock(int64_t in, int64_t out) {
  const std::vector<int64_t> cube = {3, 3, 3};
  const auto residual = register_module("residual", std::make_shared<Named>());
  norm_in_ = residual->register_module("0", WanVaeNorm(in));
  conv_in_ = residual->register_module("2", ConvWeights(in, out, cube));
  norm_out_ = residual->register_module("3", WanVaeNorm(out));
  conv_out_ = residual->register_module("6", ConvWeights(out, out, cube));
  if (in != out) {
    shortcut_ = register_module("shortcut", ConvWeights(in, out, std::vector<int64_t>{1, 1, 1}));
  }
}

at::Tensor WanVaeResBlock::forward(const at::Tensor& x, HistoryPass& pass) const {
  const at::Tensor hidden = causal_conv(norm_in_->activated(x), conv_in_, kZeros, pass.next());
  const at::Tensor out = causal_conv(norm_out_->activated(hidden), conv_out_, kZeros, pass.next());
  return out + (shortcut_.is_empty() ? x : pointwise_conv(x, shortcut_));
}

WanVaeAttention::WanVaeAttention(int64_t channels) {
  const std::vector<int64_t> point = {1, 1};
  norm_ = register_module("norm", WanVaeNorm(channels, true));
  to_qkv_ = register_module("to_qkv", ConvWeights(channels, 3 * channels, point));
  proj_ = register_module("proj", ConvWeights(channels, channels, point));
}

at::Tensor WanVaeAttention::forward(const at::Tensor& x, HistoryPass& /*pass*/) const {
  const auto qkv = pointwise_conv(norm_->forward(x), to_qkv_).chunk(3, 1);
  return x + pointwise_conv(frame_pixel_attention(qkv[0], qkv[1], qkv[2]), proj_);
}

WanVaeResample::WanVaeResample(int64_t channels, WanVaeSampling sampling, bool temporal)
    : sampling_(sampling) {
  const bool up = sampling == WanVaeSampling::kUp;
  const auto resample = register_module("resample", std::make_shared<Named>());
  spatial_ = resample->register_module(
      "1", ConvWeights(channels, up ? channels / 2 : channels, std::vector<int64_t>{3, 3}));
  if (temporal) {
    temporal_ = register_module("time_conv", ConvWeights(channels, up ? 2 * channels : channels,
                                                         std::vector<int64_t>{3, 1, 1}));
  }
}

at::Tensor WanVaeResample::more_frames(const at::Tensor& x, HistoryPass& pass) const {
  at::Tensor& past = pass.next();
  if (pass.first()) {
    return x;  // and this frame is not remembered: the published weights know it so
  }
  const at::Tensor pairs = causal_conv(x, temporal_, kZeros, past);
  return pairs.unflatten(1, {2, x.size(1)}).permute({0, 2, 3, 1, 4, 5}).flatten(2, 3);
}

at::Tensor WanVaeResample::fewer_frames(const at::Tensor& x, HistoryPass& pass) const {
  at::Tensor& past = pass.next();
  const at::Tensor before = past;
  past = x.narrow(2, x.size(2) - 1, 1).clone(at::MemoryFormat::Contiguous);
  if (pass.first()) {
    return x;
  }
  require(x.size(2) % 2 == 0, "a part of {} frames cannot be halved", x.size(2));
  return at::conv3d(at::cat({before, x}, 2), temporal_->weight, temporal_->bias, {2, 1, 1});
}

at::Tensor WanVaeResample::forward(const at::Tensor& x, HistoryPass& pass) const {
  if (sampling_ == WanVaeSampling::kUp) {
    const at::Tensor frames = temporal_.is_empty() ? x : more_frames(x, pass);
    const at::Tensor large =
        at::upsample_nearest3d(frames, {frames.size(2), 2 * frames.size(3), 2 * frames.size(4)});
    return frame_conv(large, spatial_, 1, 1);
  }
  // One row and one column of zeros, to the bottom and to the right only.
  const at::Tensor small = frame_conv(at::constant_pad_nd(x, {0, 1, 0, 1}), spatial_, 2, 0);
  return temporal_.is_empty() ? small : fewer_frames(small, pass);
}

}  // namespace minwm::models
