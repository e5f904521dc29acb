#pragma once
// The encoder of a T5 v1.1: umT5-XXL (Wan's text encoder) and byT5 (HunyuanVideo-1.5's glyphs).

#include <vector>

#include <torch/torch.h>

#include "minwm/models/encoder_parts.h"

namespace minwm::models {

enum class T5Names { kWan, kHuggingFace };

struct T5Config {
  std::string name;  ///< for messages
  int64_t vocab_size, dim, dim_attn, dim_ffn, num_heads, num_layers;
  int64_t num_buckets = 32, max_distance = 128;
  bool shared_bias = false;  ///< one table of relative biases for all blocks
  double eps = 1e-6;
  T5Names names = T5Names::kWan;

  /// google/umt5-xxl in Wan's form: 5,680,910,336 values.
  static T5Config umt5_xxl();
  /// @throws Error naming what is not positive or does not divide.
  void check() const;
};

/// Buckets of relative positions (key minus query), any shape, int64 → int64.
/// Source: spec encoders 1.3; golden kind encoders.t5.bucket.
at::Tensor t5_buckets(const at::Tensor& relative, int64_t num_buckets, int64_t max_distance,
                      bool bidirectional = true);

/// x = E[ids]; per block x += O softmax(q k^T + bias) v of RMS(x), then x += fc2(fc1(h) gelu(gate
/// h)) of h = RMS(x); the result is RMS(x). No scaling of the scores; softmax and RMS statistics in
/// float32, everything else in the weights' type.
/// Source: spec encoders 1.3, 4.3; golden kinds encoders.wan_t5.forward, encoders.umt5_hf.forward.
class T5Encoder : public torch::nn::Module {
 public:
  T5Encoder(const T5Config& config, at::ScalarType type);
  const T5Config& config() const { return config_; }

  /// What trainers and samplers get: every prompt runs alone at its true length, so neither padding
  /// nor the other prompts can matter.
  /// @param ids, mask  [B, L] int64 on any device, 1 = token, tokens first; a row may have none.
  /// @return [B, L, E] in the weights' type and on their device; rows past a length are zero.
  /// @throws Error on shapes, an unknown token, or a mask with holes.
  at::Tensor encode(const at::Tensor& ids, const at::Tensor& mask) const;

  /// All rows of a padded run: masked keys get the weight 0. Every row of `mask` needs a 1.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& mask) const;

  /// x after the first `blocks` blocks, before the last norm. `mask` undefined: all are tokens.
  at::Tensor after_blocks(const at::Tensor& ids, const at::Tensor& mask, int64_t blocks) const;

  /// The bias of a block for a text of L tokens, [A, L, L] (query, key), weights' type.
  at::Tensor relative_bias(int64_t block, int64_t length) const;

 private:
  struct Block {
    at::Tensor norm1, norm2;
    FrozenLinear q, k, v, o, gate, fc1, fc2;
    at::Tensor bias;  ///< [buckets, A]; that of all blocks where they share it
  };
  Block make_block(const FrozenWeights& weights, int64_t index) const;
  std::string own_name(const std::string& wan_name) const;
  at::Tensor run_block(const Block& block, at::Tensor x, const at::Tensor& bias) const;

  T5Config config_;
  at::Tensor embedding_, norm_, shared_bias_;
  std::vector<Block> blocks_;
};

}  // namespace minwm::models
