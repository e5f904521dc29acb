#pragma once
// SigLIP's vision tower (FLUX.1-Redux-dev), HunyuanVideo-1.5's encoder of the reference image.

#include <optional>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/encoder_parts.h"

namespace minwm::models {

/// so400m-patch14-384: 729 tokens of width 1152, 428,225,600 values with the head.
struct SiglipConfig {
  int64_t hidden_size = 1152, intermediate_size = 4304, num_hidden_layers = 27;
  int64_t num_attention_heads = 16, image_size = 384, patch_size = 14;
  double layer_norm_eps = 1e-6;
  bool head = false;  ///< the attention that pools the tokens; nothing here uses it

  /// Tokens of an image; rows and columns of pixels beyond the last whole patch are dropped.
  int64_t tokens() const { return (image_size / patch_size) * (image_size / patch_size); }
  /// @throws Error naming what is not positive or does not divide.
  void check() const;
};

/// Pre-norm transformer over patches, LayerNorm at the end.
/// Source: spec encoders 5; golden kind encoders.siglip.forward.
class SiglipVision : public torch::nn::Module {
 public:
  SiglipVision(const SiglipConfig& config, at::ScalarType type);
  const SiglipConfig& config() const { return config_; }

  /// pixels [B, 3, S, S] as siglip_pixels() (resize.h) makes them → last_hidden_state [B, tokens,
  /// E] in the weights' type. @throws Error on another shape.
  at::Tensor forward(const at::Tensor& pixels) const;
  /// Patches and positions, what the blocks start from: [B, tokens, E].
  at::Tensor embed(const at::Tensor& pixels) const;
  /// last_hidden_state → pooler_output [B, E]. @throws Error without a head.
  at::Tensor pool(const at::Tensor& states) const;

 private:
  struct Layer {
    FrozenLayerNorm norm1, norm2;
    FrozenLinear q, k, v, out, fc1, fc2;
  };
  struct Head {
    at::Tensor probe, in_weight, in_bias;
    FrozenLinear out, fc1, fc2;
    FrozenLayerNorm norm;
  };
  Layer make_layer(const FrozenWeights& weights, int64_t index) const;
  Head make_head(const FrozenWeights& weights) const;
  at::Tensor run_layer(const Layer& layer, at::Tensor x) const;
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;

  SiglipConfig config_;
  at::Tensor patch_weight_, patch_bias_, positions_;
  std::vector<Layer> layers_;
  std::optional<FrozenLayerNorm> norm_;
  std::optional<Head> head_;
};

/// What SiglipVision needs out of a checkpoint: without the head where the configuration has none.
ParameterSource siglip_source(const ParameterSource& source, const SiglipConfig& config);

}  // namespace minwm::models
