#pragma once
// Small encoders and random weights for them.

#include <map>
#include <memory>
#include <string>

#include "minwm/core/random.h"
#include "minwm/models/text/qwen_encoder.h"
#include "minwm/models/text/t5_encoder.h"
#include "minwm/models/vision/clip_visual.h"
#include "minwm/models/vision/siglip.h"

namespace minwm::models::testing {

using Values = std::map<std::string, at::Tensor>;

/// Random values for a module's parameters, by name: a module of fewer layers gets the same ones.
inline Values values_for(const torch::nn::Module& module, double scale = 0.3) {
  Values values;
  for (const auto& item : module.named_parameters()) {
    const at::Tensor noise = scale * random_normal(item.value().sizes(), {5, item.key()});
    const bool norm = item.key().find("norm") != std::string::npos && item.value().dim() == 1 &&
                      item.key().ends_with("weight");
    values[item.key()] = norm ? 1 + noise : noise;
  }
  return values;
}

inline ParameterSource source_of(const Values& values) {
  ParameterSource source;
  source.where = "weights.file";
  for (const auto& [name, value] : values) {
    source.shapes[name] = value.sizes().vec();
  }
  source.read = [values](const std::string& name, int64_t begin, int64_t count) {
    return values.at(name).flatten().narrow(0, begin, count);
  };
  return source;
}

template <class Encoder, class Config>
std::shared_ptr<Encoder> lively(const Config& config, at::ScalarType type = at::kFloat) {
  auto encoder = std::make_shared<Encoder>(config, type);
  load_encoder(*encoder, source_of(values_for(*encoder)));
  return encoder;
}

inline T5Config small_t5(bool shared = false) {
  T5Config config = {.name = "T5",
                     .vocab_size = 50,
                     .dim = 24,
                     .dim_attn = 12,
                     .dim_ffn = 20,
                     .num_heads = 3,
                     .num_layers = 3};
  config.num_buckets = 16;
  config.shared_bias = shared;
  return config;
}

inline QwenConfig small_qwen() {
  QwenConfig config;
  config.vocab_size = 50;
  config.hidden_size = 24;
  config.intermediate_size = 20;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  return config;
}

inline SiglipConfig small_siglip() {
  SiglipConfig config;
  config.hidden_size = 24;
  config.intermediate_size = 20;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 3;
  config.image_size = 17;  // 3 x 3 patches and 2 pixels
  config.patch_size = 5;
  return config;
}

inline ClipVisualConfig small_clip() {
  ClipVisualConfig config;
  config.image_size = 12;
  config.patch_size = 4;
  config.dim = 24;
  config.num_heads = 3;
  config.blocks_used = 2;
  return config;
}

}  // namespace minwm::models::testing
