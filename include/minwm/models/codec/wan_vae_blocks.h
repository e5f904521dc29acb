#pragma once
// The blocks of the Wan2.1 autoencoder under their published names (spec vae 3.2). Video is
// [B, C, T, H, W]; a block runs on the next part of a stream.

#include <memory>
#include <string>

#include <torch/torch.h>

#include "minwm/models/codec/causal_conv.h"

namespace minwm::models {

/// What the lists of encoder and decoder consist of.
class WanVaeBlock : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const = 0;
};

/// channel_norm with its parameter `gamma`, stored as [C, 1, 1, 1], or [C, 1, 1] in attention.
class WanVaeNormImpl : public torch::nn::Module {
 public:
  explicit WanVaeNormImpl(int64_t channels, bool of_frames = false);
  at::Tensor forward(const at::Tensor& x) const { return channel_norm(x, gamma); }
  /// SiLU of that.
  at::Tensor activated(const at::Tensor& x) const;
  at::Tensor gamma;
};
TORCH_MODULE(WanVaeNorm);

/// Two convolutions of 3 x 3 x 3 with norm and SiLU before each: residual.{0,2,3,6}, shortcut where
/// the width changes.
class WanVaeResBlock final : public WanVaeBlock {
 public:
  WanVaeResBlock(int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const override;

 private:
  WanVaeNorm norm_in_{nullptr}, norm_out_{nullptr};
  ConvWeights conv_in_{nullptr}, conv_out_{nullptr}, shortcut_{nullptr};
};

/// Attention among the pixels of each frame: norm, to_qkv, proj.
class WanVaeAttention final : public WanVaeBlock {
 public:
  explicit WanVaeAttention(int64_t channels);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const override;

 private:
  WanVaeNorm norm_{nullptr};
  ConvWeights to_qkv_{nullptr}, proj_{nullptr};
};

enum class WanVaeSampling { kUp, kDown };

/// Twice or half the size, and where `temporal` twice or half the frames: resample.1, time_conv.
/// A stream's first frame stays one frame. Up halves the channels.
class WanVaeResample final : public WanVaeBlock {
 public:
  WanVaeResample(int64_t channels, WanVaeSampling sampling, bool temporal);
  at::Tensor forward(const at::Tensor& x, HistoryPass& pass) const override;

 private:
  at::Tensor more_frames(const at::Tensor& x, HistoryPass& pass) const;
  at::Tensor fewer_frames(const at::Tensor& x, HistoryPass& pass) const;

  WanVaeSampling sampling_;
  ConvWeights spatial_{nullptr}, temporal_{nullptr};
};

}  // namespace minwm::models
