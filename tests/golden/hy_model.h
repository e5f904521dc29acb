#pragma once
// What the HunyuanVideo-1.5 cases share: the configuration of a case, its conditions.

#include <array>

#include "minwm/core/error.h"
#include "minwm/models/conditions.h"
#include "minwm/models/hy/config.h"
#include "model_case.h"

namespace minwm::golden {

/// config.model of a case, or what a case of a single module says instead.
inline models::HyConfig hy_config(const Case& c) {
  const auto& m = c.config.contains("model") ? c.config.at("model") : c.config;
  models::HyConfig config;
  auto read = [&m](const char* key, auto& field) {
    if (m.contains(key)) {
      m.at(key).get_to(field);
    }
  };
  read("patch_size", config.patch_size);
  read("in_channels", config.in_channels);
  read("out_channels", config.out_channels);
  read("hidden_size", config.hidden_size);
  read("heads_num", config.heads_num);
  read("mm_double_blocks_depth", config.mm_double_blocks_depth);
  read("mlp_width_ratio", config.mlp_width_ratio);
  read("rope_dim_list", config.rope_dim_list);
  read("rope_theta", config.rope_theta);
  read("text_states_dim", config.text_states_dim);
  read("vision_states_dim", config.vision_states_dim);
  if (m.contains("byt5_dims")) {
    const auto& dims = m.at("byt5_dims");
    config.byt5_dims = {dims.at("in").get<int64_t>(), dims.at("hidden").get<int64_t>(),
                        dims.at("mid").get<int64_t>()};
  }
  config.camera = m.value("camera", "none") != "none";
  config.action = m.value("action", false);
  require(m.value("mm_single_blocks_depth", 0) == 0, "{}: single-stream blocks are not defined",
          c.path);
  return config;
}

/// The text inputs of a case, and its cameras and actions if it has any.
inline models::Conditions hy_conditions(const Case& c) {
  models::Conditions conditions;
  conditions.text = c.in("text_states");
  conditions.text_mask = c.in("text_mask");
  conditions.byt5 = c.in("byt5_states");
  conditions.byt5_mask = c.in("byt5_mask");
  conditions.vision = c.in("vision_states");
  conditions.text_to_video = c.config.value("mask_type", "i2v") == "t2v";
  if (c.has("in/viewmats")) {
    conditions.cameras = {c.in("viewmats"), c.has("in/Ks") ? c.in("Ks") : at::Tensor()};
  }
  if (c.has("in/action")) {
    conditions.actions = c.in("action").to(at::kLong);
  }
  return conditions;
}

}  // namespace minwm::golden
