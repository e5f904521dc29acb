#pragma once
// The blocks of the HunyuanVideo-1.5 autoencoder under their published names (spec vae 4.2). Video
// is [B, C, T, H, W]; a block runs on the next part of a stream. A stream's first part may hold any
// number of frames: its first frame is resampled in space only, the others in time too.

#include <torch/torch.h>

#include "minwm/models/codec/causal_conv.h"

namespace minwm::models {

/// Which pixels the attention of the middle sees: those of the same frame (as minWM trains and
/// streams), or of the frames before it in the same part too (the original one-shot class).
enum class HyVaeAttentionScope { kFrame, kCausal };

/// A causal 3 x 3 x 3 convolution with replicated borders: conv.{weight,bias}.
class HyVaeConvImpl : public torch::nn::Module {
 public:
  HyVaeConvImpl(int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const;

 private:
  ConvWeights conv_{nullptr};
};
TORCH_MODULE(HyVaeConv);

/// channel_norm with its parameter `gamma` [C, 1, 1, 1].
class HyVaeNormImpl : public torch::nn::Module {
 public:
  explicit HyVaeNormImpl(int64_t channels);
  at::Tensor forward(const at::Tensor& x) const { return channel_norm(x, gamma_); }
  /// SiLU of that.
  at::Tensor activated(const at::Tensor& x) const;

 private:
  at::Tensor gamma_;
};
TORCH_MODULE(HyVaeNorm);

/// norm1, conv1, norm2, conv2, and nin_shortcut where the width changes.
class HyVaeResBlockImpl : public torch::nn::Module {
 public:
  HyVaeResBlockImpl(int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const;

 private:
  HyVaeNorm norm1_{nullptr}, norm2_{nullptr};
  HyVaeConv conv1_{nullptr}, conv2_{nullptr};
  ConvWeights shortcut_{nullptr};
};
TORCH_MODULE(HyVaeResBlock);

/// norm, q, k, v, proj_out: one head of the full width, x added.
class HyVaeAttentionImpl : public torch::nn::Module {
 public:
  explicit HyVaeAttentionImpl(int64_t channels);
  at::Tensor forward(const at::Tensor& x, HyVaeAttentionScope scope) const;

 private:
  HyVaeNorm norm_{nullptr};
  ConvWeights q_{nullptr}, k_{nullptr}, v_{nullptr}, proj_{nullptr};
};
TORCH_MODULE(HyVaeAttention);

/// Half the size, and where `temporal` half the frames after the first: conv.
class HyVaeDownsampleImpl : public torch::nn::Module {
 public:
  /// @throws Error where the widths do not divide.
  HyVaeDownsampleImpl(int64_t in, int64_t out, bool temporal);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const;

 private:
  int64_t out_;
  bool temporal_;
  HyVaeConv conv_{nullptr};
};
TORCH_MODULE(HyVaeDownsample);

/// Twice the size, and where `temporal` twice the frames after the first: conv.
class HyVaeUpsampleImpl : public torch::nn::Module {
 public:
  /// @throws Error where the widths do not divide.
  HyVaeUpsampleImpl(int64_t in, int64_t out, bool temporal);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const;

 private:
  int64_t out_;
  bool temporal_;
  HyVaeConv conv_{nullptr};
};
TORCH_MODULE(HyVaeUpsample);

/// [B, C, T, H, W] → [B, groups, T, H, W]: means of consecutive groups of channels.
at::Tensor mean_of_channels(const at::Tensor& x, int64_t groups);
/// [B, C, T, H, W] → [B, channels, T, H, W]: every channel repeated consecutively.
at::Tensor repeat_channels(const at::Tensor& x, int64_t channels);

}  // namespace minwm::models
