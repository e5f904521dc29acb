#pragma once
// The visual side of open-CLIP's XLM-R ViT-H/14, Wan2.1 I2V's encoder of the reference image.

#include <optional>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/encoder_parts.h"

namespace minwm::models {

/// ViT-H/14: a class token and 256 patches of width 1280; the last of 32 blocks is not used.
struct ClipVisualConfig {
  int64_t image_size = 224, patch_size = 14, dim = 1280, mlp_ratio = 4, num_heads = 16;
  int64_t blocks_used = 31;
  double eps = 1e-5;

  int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  /// @throws Error naming what is not positive or does not divide.
  void check() const;
};

/// Class token and patches with positions, a norm, then pre-norm blocks with exact GELU. Names are
/// the published ones ("visual.…"); only what is used exists.
/// Source: spec encoders 6; golden kind encoders.clip_wan.visual.
class ClipVisual : public torch::nn::Module {
 public:
  ClipVisual(const ClipVisualConfig& config, at::ScalarType type);
  /// pixels [B, 3, S, S] as clip_pixels() makes them → [B, 1 + patches, E] in the weights' type.
  /// @throws Error on another shape.
  at::Tensor forward(const at::Tensor& pixels) const;

 private:
  struct Block {
    FrozenLayerNorm norm1, norm2;
    FrozenLinear qkv, proj, fc1, fc2;
  };
  Block make_block(const FrozenWeights& weights, int64_t index) const;
  at::Tensor run_block(const Block& block, at::Tensor x) const;

  ClipVisualConfig config_;
  at::Tensor patch_weight_, cls_, positions_;
  std::optional<FrozenLayerNorm> pre_norm_;
  std::vector<Block> blocks_;
};

/// What ClipVisual needs out of a checkpoint of both sides: "visual." names without the norm and
/// projection at the end and without the blocks that are not used.
ParameterSource clip_visual_source(const ParameterSource& source, const ClipVisualConfig& config);

/// Frames [B, 3, H, W] float32 in [-1, 1] → [B, 3, size, size]: bicubic, then CLIP's mean and
/// standard deviation.
at::Tensor clip_pixels(const at::Tensor& frames, int64_t size = 224);

}  // namespace minwm::models
