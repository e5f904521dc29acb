#include "minwm/models/codec/hy_vae_blocks.h"

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

const std::vector<int64_t> kPoint = {1, 1, 1};

/// [B, C, f T, 2 H, 2 W] → [B, 4 f C, T, H, W], positions (time, row, column) before channels.
at::Tensor fold(const at::Tensor& x, int64_t frames) {
  const auto s = x.sizes();
  require(s[2] % frames == 0 && s[3] % 2 == 0 && s[4] % 2 == 0,
          "a part [{}] of a video cannot be halved: expected even height and width, and an even "
          "number of frames after the first",
          fmt::join(s, ", "));
  return x.reshape({s[0], s[1], s[2] / frames, frames, s[3] / 2, 2, s[4] / 2, 2})
      .permute({0, 3, 5, 7, 1, 2, 4, 6})
      .reshape({s[0], 4 * frames * s[1], s[2] / frames, s[3] / 2, s[4] / 2});
}

/// The inverse of fold.
at::Tensor unfold(const at::Tensor& x, int64_t frames) {
  const auto s = x.sizes();
  const int64_t channels = s[1] / (4 * frames);
  return x.reshape({s[0], frames, 2, 2, channels, s[2], s[3], s[4]})
      .permute({0, 4, 5, 1, 6, 2, 7, 3})
      .reshape({s[0], channels, s[2] * frames, 2 * s[3], 2 * s[4]});
}

at::Tensor frames_from(const at::Tensor& x, int64_t begin) {
  return x.narrow(2, begin, x.size(2) - begin);
}

/// Resamples a part of a stream: its first frame by `first`, the others by `rest`.
template <class First, class Rest>
at::Tensor by_frames(const at::Tensor& hidden, const at::Tensor& x, bool starts, const First& first,
                     const Rest& rest) {
  if (!starts) {
    return rest(hidden, x);
  }
  const at::Tensor head = first(hidden.narrow(2, 0, 1), x.narrow(2, 0, 1));
  return x.size(2) == 1 ? head
                        : at::cat({head, rest(frames_from(hidden, 1), frames_from(x, 1))}, 2);
}

void require_multiple(int64_t a, int64_t b, int64_t in, int64_t out) {
  require(b > 0 && a % b == 0,
          "HunyuanVideo VAE: no resampling from {} to {} channels: {} is not a multiple of {}", in,
          out, a, b);
}

}  // namespace

at::Tensor mean_of_channels(const at::Tensor& x, int64_t groups) {
  return x.unflatten(1, {groups, x.size(1) / groups}).mean(2);
}

at::Tensor repeat_channels(const at::Tensor& x, int64_t channels) {
  return x.unsqueeze(2).expand({-1, -1, channels / x.size(1), -1, -1, -1}).flatten(1, 2);
}

HyVaeConvImpl::HyVaeConvImpl(int64_t in, int64_t out) {
  conv_ = register_module("conv", ConvWeights(in, out, std::vector<int64_t>{3, 3, 3}));
}

at::Tensor HyVaeConvImpl::forward(const at::Tensor& x, HistoryPass& pass) const {
  return causal_conv(x, conv_, VideoPadding::kReplicate, pass.next());
}

HyVaeNormImpl::HyVaeNormImpl(int64_t channels)
    : gamma_(register_parameter("gamma", nn::make_parameter({channels, 1, 1, 1}, 1))) {}

at::Tensor HyVaeNormImpl::activated(const at::Tensor& x) const {
  at::Tensor y = forward(x);
  return at::silu_(y);
}

HyVaeResBlockImpl::HyVaeResBlockImpl(int64_t in, int64_t out) {
  norm1_ = register_module("norm1", HyVaeNorm(in));
  conv1_ = register_module("conv1", HyVaeConv(in, out));
  norm2_ = register_module("norm2", HyVaeNorm(out));
  conv2_ = register_module("conv2", HyVaeConv(out, out));
  if (in != out) {
    shortcut_ = register_module("nin_shortcut", ConvWeights(in, out, kPoint));
  }
}

at::Tensor HyVaeResBlockImpl::forward(const at::Tensor& x, HistoryPass& pass) const {
  const at::Tensor hidden = conv1_->forward(norm1_->activated(x), pass);
  const at::Tensor out = conv2_->forward(norm2_->activated(hidden), pass);
  return out + (shortcut_.is_empty() ? x : pointwise_conv(x, shortcut_));
}

HyVaeAttentionImpl::HyVaeAttentionImpl(int64_t channels) {
  norm_ = register_module("norm", HyVaeNorm(channels));
  q_ = register_module("q", ConvWeights(channels, channels, kPoint));
  k_ = register_module("k", ConvWeights(channels, channels, kPoint));
  v_ = register_module("v", ConvWeights(channels, channels, kPoint));
  proj_ = register_module("proj_out", ConvWeights(channels, channels, kPoint));
}

at::Tensor HyVaeAttentionImpl::forward(const at::Tensor& x, HyVaeAttentionScope scope) const {
  const at::Tensor y = norm_->forward(x);
  const at::Tensor q = pointwise_conv(y, q_), k = pointwise_conv(y, k_), v = pointwise_conv(y, v_);
  if (scope == HyVaeAttentionScope::kFrame || x.size(2) == 1) {
    return x + pointwise_conv(frame_pixel_attention(q, k, v), proj_);
  }
  // Every frame looks at those up to it by itself: no mask is ever made.
  const auto pixels = [](const at::Tensor& t, int64_t begin, int64_t count) {
    return t.narrow(2, begin, count).flatten(2, 4).transpose(1, 2).unsqueeze(1);
  };
  std::vector<at::Tensor> frames;
  for (int64_t i = 0; i < x.size(2); ++i) {
    const at::Tensor seen =
        at::scaled_dot_product_attention(pixels(q, i, 1), pixels(k, 0, i + 1), pixels(v, 0, i + 1));
    frames.push_back(seen.squeeze(1).transpose(1, 2).unflatten(2, {1, x.size(3), x.size(4)}));
  }
  return x + pointwise_conv(at::cat(frames, 2), proj_);
}

HyVaeDownsampleImpl::HyVaeDownsampleImpl(int64_t in, int64_t out, bool temporal)
    : out_(out), temporal_(temporal) {
  require_multiple(out, temporal ? 8 : 4, in, out);
  require_multiple(4 * in, out, in, out);
  conv_ = register_module("conv", HyVaeConv(in, out / (temporal ? 8 : 4)));
}

at::Tensor HyVaeDownsampleImpl::forward(const at::Tensor& x, HistoryPass& pass) const {
  const at::Tensor hidden = conv_->forward(x, pass);
  const auto folded = [&](int64_t frames) {
    return [this, frames](const at::Tensor& h, const at::Tensor& input) {
      const at::Tensor y = fold(h, frames);
      const at::Tensor shortcut = mean_of_channels(fold(input, frames), out_);
      // A first frame has half of the positions: it stands for both halves in time.
      return (y.size(1) == out_ ? y : at::cat({y, y}, 1)) + shortcut;
    };
  };
  return by_frames(hidden, x, temporal_ && pass.first(), folded(1), folded(temporal_ ? 2 : 1));
}

HyVaeUpsampleImpl::HyVaeUpsampleImpl(int64_t in, int64_t out, bool temporal)
    : out_(out), temporal_(temporal) {
  require_multiple(4 * out, in, in, out);
  conv_ = register_module("conv", HyVaeConv(in, (temporal ? 8 : 4) * out));
}

at::Tensor HyVaeUpsampleImpl::forward(const at::Tensor& x, HistoryPass& pass) const {
  const at::Tensor hidden = conv_->forward(x, pass);
  const auto unfolded = [&](int64_t frames) {
    return [this, frames](const at::Tensor& h, const at::Tensor& input) {
      // Of a first frame the second half of each position's channels does not count.
      const at::Tensor y = unfold(h, frames).narrow(1, 0, out_);
      return y + unfold(repeat_channels(input, 4 * frames * out_), frames);
    };
  };
  return by_frames(hidden, x, temporal_ && pass.first(), unfolded(1), unfolded(temporal_ ? 2 : 1));
}

}  // namespace minwm::models
