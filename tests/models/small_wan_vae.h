#pragma once
// A small Wan2.1 VAE with random weights.

#include "minwm/models/codec/wan_vae.h"
#include "tests/models/small_codecs.h"

namespace minwm::models::testing {

/// The published structure, narrower.
inline WanVaeConfig small_wan_vae() {
  return {.dim = 4, .num_res_blocks = 2};
}

/// Random values for all parameters of a configuration.
inline Tensors random_wan_vae(const WanVaeConfig& config) {
  return random_weights(*WanVaeEncoder(config), *WanVaeDecoder(config));
}

inline WanVae small_wan_codec(const WanVaeOptions& options = {}) {
  const auto config = small_wan_vae();
  return {config, random_wan_vae(config), "test", options};
}

}  // namespace minwm::models::testing
