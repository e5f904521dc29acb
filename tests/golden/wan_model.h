#pragma once
// What the Wan cases share: building the model of a case, its conditions.

#include <memory>

#include "minwm/models/state.h"
#include "minwm/models/wan/backbone.h"
#include "model_case.h"

namespace minwm::golden {

inline models::WanConfig wan_config(const Case& c, bool camera) {
  const auto& m = c.config.at("model");
  models::WanConfig config;
  auto read = [&](const char* key, auto& field) {
    if (m.contains(key)) {
      m.at(key).get_to(field);
    }
  };
  read("model_type", config.model_type);
  read("text_len", config.text_len);
  read("in_dim", config.in_dim);
  read("dim", config.dim);
  read("ffn_dim", config.ffn_dim);
  read("freq_dim", config.freq_dim);
  read("text_dim", config.text_dim);
  read("out_dim", config.out_dim);
  read("num_heads", config.num_heads);
  read("num_layers", config.num_layers);
  read("qk_norm", config.qk_norm);
  read("cross_attn_norm", config.cross_attn_norm);
  read("eps", config.eps);
  read("patch_size", config.patch_size);
  if (c.config.contains("clip_dim")) {
    c.config.at("clip_dim").get_to(config.clip_dim);
  }
  config.camera = camera;
  return config;
}

inline std::shared_ptr<models::WanBackbone> wan_model(const Case& c,
                                                      const std::string& prefix = "") {
  const auto tensors = parameters(c, prefix);
  auto model = std::make_shared<models::WanBackbone>(
      wan_config(c, tensors.count("blocks.0.self_attn.prope_o.weight") != 0), 0);
  models::load_state(*model, tensors, c.path);
  return model;
}

inline models::Conditions wan_conditions(const Case& c) {
  models::Conditions conditions;
  conditions.text = c.in("context").to(at::kFloat);
  if (c.has("in/viewmats")) {
    conditions.cameras = {c.in("viewmats").to(at::kFloat), c.in("Ks").to(at::kFloat)};
  }
  return conditions;
}

}  // namespace minwm::golden
