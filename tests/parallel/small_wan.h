#pragma once
// The small Wan model of this room's tests.

#include <memory>

#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"

namespace minwm::parallel::testing {

constexpr int64_t kChannels = 3, kTextDim = 5, kHeight = 6;

/// 5 heads: they do not divide by 2 or 4 ranks.
inline models::WanConfig small_config(int64_t layers, bool image = false) {
  models::WanConfig config;
  config.model_type = image ? "i2v" : "t2v";
  config.in_dim = image ? 2 * kChannels : kChannels;
  config.out_dim = kChannels;
  config.clip_dim = 12;
  config.dim = 40;
  config.ffn_dim = 24;
  config.freq_dim = 16;
  config.text_dim = kTextDim;
  config.text_len = 4;
  config.num_heads = 5;
  config.num_layers = layers;
  return config;
}

/// The head and the camera projections start at zero; random weights make every input matter.
inline std::shared_ptr<models::WanBackbone> lively_model(const models::WanConfig& config) {
  auto model = std::make_shared<models::WanBackbone>(config, 1);
  at::NoGradGuard no_grad;
  for (auto& parameter : model->named_parameters()) {
    parameter.value().add_(0.2 * random_normal(parameter.value().sizes(), {7, parameter.key()}));
  }
  return model;
}

}  // namespace minwm::parallel::testing
