#pragma once
// The language model of Qwen2.5-VL as HunyuanVideo-1.5's text encoder: text only, up to the layer
// whose state is used.

#include <optional>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/encoder_parts.h"

namespace minwm::models {

struct QwenConfig {
  int64_t vocab_size = 152064, hidden_size = 3584, intermediate_size = 18944;
  int64_t num_hidden_layers = 28, num_attention_heads = 28, num_key_value_heads = 4;
  double rms_norm_eps = 1e-6, rope_theta = 1e6;
  /// Layers before the end whose state is used: 0 = the normed last one, as is nullopt.
  std::optional<int64_t> hidden_state_skip_layer = 2;
  bool apply_final_norm = false;  ///< norm the state of an earlier layer too

  /// Layers that are run (26 of 28).
  int64_t layers_used() const;
  /// Whether the state passes the final norm.
  bool norm_used() const;
  /// @throws Error naming what is not positive or does not divide.
  void check() const;
};

/// A prompt's states and mask after the template's constant beginning was cut off.
struct QwenStates {
  at::Tensor embeds;  ///< [B, L - crop, E], rows past a prompt are zero
  at::Tensor mask;    ///< [B, L - crop] int64
};

/// Pre-norm causal decoder: grouped attention with rotary positions 0, 1, 2, …, SwiGLU. Parameters
/// have the published names without "model.", and only those of the layers that are used exist.
/// Source: spec encoders 3; golden kind encoders.hy_llm.encode.
class QwenEncoder : public torch::nn::Module {
 public:
  QwenEncoder(const QwenConfig& config, at::ScalarType type);
  const QwenConfig& config() const { return config_; }

  /// Every prompt runs alone at its true length (the model is causal: padding on the right cannot
  /// matter).
  /// @param ids, mask  [B, L] int64, right padded. @param crop  tokens of the template to drop.
  /// @throws Error on shapes, an unknown token, a mask with holes, or crop outside of 0 … L.
  QwenStates encode(const at::Tensor& ids, const at::Tensor& mask, int64_t crop) const;

  /// The state that is used. ids [B, L] without padding → [B, L, E].
  at::Tensor forward(const at::Tensor& ids) const;

  /// x after the first `layers` layers (0 = the embeddings), without any norm.
  at::Tensor after_layers(const at::Tensor& ids, int64_t layers) const;

 private:
  struct Layer {
    at::Tensor input_norm, post_norm;
    FrozenLinear q, k, v, o, gate, up, down;
  };
  Layer make_layer(const FrozenWeights& weights, int64_t index) const;
  at::Tensor run_layer(const Layer& layer, at::Tensor x, const at::Tensor& cosine,
                       const at::Tensor& sine) const;

  QwenConfig config_;
  at::Tensor embedding_, norm_;
  std::vector<Layer> layers_;
};

/// What QwenEncoder needs out of a checkpoint of the whole model: "model.", "language_model." and
/// their combinations are taken off; the vision tower, lm_head, the layers that are not used and a
/// norm that is not used are left out and never read.
ParameterSource qwen_source(const ParameterSource& source, const QwenConfig& config);

}  // namespace minwm::models
