#pragma once
// What the HY cases share: the configuration of a case.

#include "case.h"
#include "minwm/models/hy/backbone.h"
#include "wan_model.h"

namespace minwm::golden {

/// config.model: the published fields, `byt5_dims`, `camera` and `action` (spec hy-mmdit 20).
inline models::HyConfig hy_config(const Case& c) {
  const auto& m = c.config.at("model");
  models::HyConfig config;
  config.camera = false;
  const auto read = [&](const char* key, auto& field) {
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
  if (m.contains("camera")) {
    config.camera = m.at("camera").get<std::string>() == "prope";
  }
  read("action", config.action);
  return config;
}

}  // namespace minwm::golden
