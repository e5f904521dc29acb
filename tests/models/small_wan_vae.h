#pragma once
// A small Wan2.1 VAE with random weights.

#include <map>
#include <string>

#include "minwm/models/codec/wan_vae.h"
#include "tests/golden/hash32.h"

namespace minwm::models::testing {

using Tensors = std::map<std::string, at::Tensor>;

/// The published structure, narrower.
inline WanVaeConfig small_wan_vae() {
  return {.dim = 4, .num_res_blocks = 2};
}

/// Random values for all parameters of a configuration.
inline Tensors random_wan_vae(const WanVaeConfig& config) {
  Tensors tensors;
  const WanVaeEncoder encoder(config);
  const WanVaeDecoder decoder(config);
  for (const auto& half : {encoder->named_parameters(), decoder->named_parameters()}) {
    for (const auto& item : half) {
      tensors[item.key()] = golden::hash32_parameter(item.key(), item.value().sizes(), 1);
    }
  }
  return tensors;
}

inline WanVae small_wan_codec(const WanVaeOptions& options = {}) {
  const auto config = small_wan_vae();
  return {config, random_wan_vae(config), "test", options};
}

}  // namespace minwm::models::testing
