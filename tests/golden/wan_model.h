#pragma once
// What the Wan cases share: building the model of a case, loading its parameters, its conditions.

#include <memory>

#include "case.h"
#include "minwm/models/state.h"
#include "minwm/models/wan/backbone.h"

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

/// Parameters under param/<prefix>.
inline std::map<std::string, at::Tensor> parameters(const Case& c, const std::string& prefix = "") {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& name : c.under("param/" + prefix)) {
    tensors[name] = c.param(prefix + name);
  }
  return tensors;
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

/// The network's [B, C, F, H, W] and ours [B, F, C, H, W].
inline at::Tensor swap_layout(const at::Tensor& x) {
  return x.transpose(1, 2).contiguous();
}

inline int64_t integer(const Case& c, const char* key) {
  return c.config.at(key).get<int64_t>();
}

/// Every grad/… of a case: parameters by name, anything else from `inputs`.
inline void compare_gradients(const Case& c, Report& report, const torch::nn::Module& model,
                              const std::map<std::string, at::Tensor>& inputs) {
  const auto known = model.named_parameters();
  for (const auto& name : c.under("grad/")) {
    const auto input = inputs.find(name);
    const at::Tensor ours = input != inputs.end() ? input->second : known[name].grad();
    report.compare("grad/" + name, ours.defined() ? ours : at::zeros_like(c.grad(name)),
                   c.grad(name));
  }
}

}  // namespace minwm::golden
