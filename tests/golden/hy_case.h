#pragma once
// What the cases of the whole HY network share: its model with the case's weights, its conditions,
// the network's tensors [B, 2C + 1, T, h, w] taken apart.

#include <memory>

#include "hy_model.h"

namespace minwm::golden {

inline std::shared_ptr<models::HyBackbone> hy_case_model(const Case& c) {
  auto model = std::make_shared<models::HyBackbone>(hy_config(c), 0);
  models::load_state(*model, parameters(c), c.path);
  return model;
}

/// Text, glyphs, vision, cameras, actions.
inline models::Conditions hy_case_conditions(const Case& c) {
  const auto optional = [&](const char* name) {
    return c.has(std::string("in/") + name) ? c.in(name) : at::Tensor();
  };
  models::Conditions conditions;
  conditions.text = c.in("text_states");
  conditions.text_mask = optional("text_mask");
  conditions.byt5 = optional("byt5_states");
  conditions.byt5_mask = optional("byt5_mask");
  conditions.vision = optional("vision_states");
  conditions.text_to_video = c.config.value("mask_type", std::string("i2v")) == "t2v";
  if (c.has("in/viewmats")) {
    conditions.cameras = {c.in("viewmats"), c.in("Ks")};
  }
  if (c.has("in/action")) {
    conditions.actions = c.in("action").view({conditions.text.size(0), -1});
  }
  return conditions;
}

/// The latents of hidden states and their conditioning channels, in our layout; both
/// differentiable.
inline at::Tensor noisy_channels(const at::Tensor& hidden_states, int64_t channels) {
  return hidden_states.narrow(1, 0, channels).transpose(1, 2);
}
inline at::Tensor image_channels(const at::Tensor& hidden_states, int64_t channels) {
  return hidden_states.slice(1, channels).transpose(1, 2);
}

}  // namespace minwm::golden
