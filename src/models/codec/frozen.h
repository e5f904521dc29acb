#pragma once
// What codecs with a network do with it: no gradients, on its input's device, known by its values.

#include <map>
#include <string>
#include <string_view>

#include <torch/torch.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/models/state.h"

namespace minwm::models {

using Tensors = std::map<std::string, at::Tensor>;

/// The tensors whose names begin with `prefix`.
inline Tensors tensors_under(const Tensors& tensors, std::string_view prefix) {
  Tensors chosen;
  for (const auto& item : tensors) {
    if (item.first.starts_with(prefix)) {
      chosen.insert(item);
    }
  }
  return chosen;
}

/// @throws Error naming `where` and the tensor: not floating point, or not finite.
inline void require_finite(const Tensors& tensors, const std::string& where) {
  for (const auto& [name, tensor] : tensors) {
    require(tensor.is_floating_point() && tensor.isfinite().all().item<bool>(),
            "{}: tensor {} is {}, expected finite floating point numbers", where, name,
            tensor.is_floating_point() ? "not finite" : c10::toString(tensor.scalar_type()));
  }
}

/// @throws Error naming `what` where a network does not compute in this type.
inline void require_compute_type(at::ScalarType type, std::string_view what) {
  require(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf,
          "{}: compute type {}, expected Float, BFloat16 or Half", what, c10::toString(type));
}

/// Loads a network that is only applied.
inline void load_frozen(torch::nn::Module& module, const Tensors& tensors,
                        const std::string& where) {
  for (auto& parameter : module.parameters()) {
    parameter.set_requires_grad(false);
  }
  load_state(module, tensors, where);
}

/// Moves a network to where its input is.
inline void follow(torch::nn::Module& module, const at::Tensor& input) {
  if (module.parameters().front().device() != input.device()) {
    module.to(input.device());
  }
}

/// Of the values, in the order of their names.
inline uint64_t values_hash(const torch::nn::Module& module) {
  Tensors sorted;
  for (const auto& item : module.named_parameters()) {
    sorted[item.key()] = item.value();
  }
  uint64_t hash = 0;
  for (const auto& [name, tensor] : sorted) {
    const std::string_view bytes(static_cast<const char*>(tensor.const_data_ptr()),
                                 tensor.nbytes());
    hash = stream_key({.seed = hash, .purpose = bytes});
  }
  return hash;
}

}  // namespace minwm::models
