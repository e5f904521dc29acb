#pragma once
// What the networks that encode conditions (text, glyphs, images) are made of: frozen weights under
// published names, held in the type they compute in.

#include <functional>
#include <string>

#include <torch/torch.h>

#include "minwm/models/state.h"

namespace minwm::models {

/// The types an encoder can hold its weights in and compute in.
/// @throws Error naming `encoder` unless float32, bfloat16 or float16.
void require_compute_type(at::ScalarType type, const std::string& encoder);

/// Registers parameters under dotted names ("blocks.0.attn.q.weight"), making the modules on the
/// way. They need no gradients; under nn::HollowParameters they have no memory.
class FrozenWeights {
 public:
  FrozenWeights(torch::nn::Module& root, at::ScalarType type) : root_(root), type_(type) {}
  at::Tensor operator()(const std::string& name, at::IntArrayRef shape, float value = 0) const;

 private:
  torch::nn::Module& root_;
  at::ScalarType type_;
};

/// x W^T + b in the weights' type.
struct FrozenLinear {
  /// `name`.weight [out, in] and, with `with_bias`, `name`.bias [out].
  FrozenLinear(const FrozenWeights& weights, const std::string& name, int64_t in, int64_t out,
               bool with_bias);
  at::Tensor operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }
  at::Tensor weight, bias;
};

/// LayerNorm over the last axis, statistics in float32.
struct FrozenLayerNorm {
  FrozenLayerNorm(const FrozenWeights& weights, const std::string& name, int64_t width, double eps);
  at::Tensor operator()(const at::Tensor& x) const {
    return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
  }
  at::Tensor weight, bias;
  double eps;
};

/// Rows of an embedding table. ids [..., L] int64 → [..., L, E].
/// @throws Error naming `encoder` if an id is none of the table's.
at::Tensor embed_ids(const at::Tensor& table, const at::Tensor& ids, const std::string& encoder);

/// The number of valid tokens of each row of a mask [B, L] (1 = valid).
/// @throws Error naming `encoder` unless ids and mask have the same shape and valid tokens come
/// first in every row.
std::vector<int64_t> valid_lengths(const at::Tensor& ids, const at::Tensor& mask,
                                   const std::string& encoder);

/// The source under other names; what `name` turns into "" is left out and never read.
/// @throws Error if two names become one.
ParameterSource renamed(const ParameterSource& source,
                        const std::function<std::string(const std::string&)>& name);

/// A whole source into a module as strictly as load_state; values are converted to the module's
/// type one parameter at a time where the source is a mapped file. A module made hollow gets its
/// memory here: the way to load a large one without writing zeros first.
void load_encoder(torch::nn::Module& encoder, const ParameterSource& source);

}  // namespace minwm::models
