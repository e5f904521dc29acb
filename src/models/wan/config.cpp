#include "minwm/models/wan/config.h"

#include <map>

#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::models {
namespace {

WanConfig tiny() {
  WanConfig c;
  c.text_len = 6;
  c.text_dim = 32;
  c.dim = 128;
  c.ffn_dim = 512;
  c.num_heads = 4;
  c.num_layers = 6;
  c.camera_init_zero =
      false;  // from scratch there is no base model to preserve; zero delays by some 50 steps
  return c;
}

/// The shipped world: half as wide again, and finer latents (24 channels).
WanConfig small() {
  WanConfig c = tiny();
  c.in_dim = c.out_dim = 24;
  c.dim = 192;
  c.ffn_dim = 768;
  c.num_heads = 6;
  return c;
}

WanConfig large() {
  WanConfig c;
  c.dim = 5120;
  c.ffn_dim = 13824;
  c.num_heads = 40;
  c.num_layers = 40;
  return c;
}

WanConfig large_i2v() {
  WanConfig c = large();
  c.model_type = "i2v";
  c.in_dim = 36;
  return c;
}

const std::map<std::string, WanConfig>& presets() {
  static const std::map<std::string, WanConfig> all = {{"wan-tiny", tiny()},
                                                       {"wan-small", small()},
                                                       {"wan-1.3b", WanConfig{}},
                                                       {"wan-14b", large()},
                                                       {"wan-14b-i2v", large_i2v()}};
  return all;
}

}  // namespace

void WanConfig::validate() const {
  require(model_type == "t2v" || model_type == "i2v",
          "wan config: model_type '{}': expected t2v or i2v", model_type);
  require(patch_size[0] == 1,
          "wan config: patch_size[0] = {}: only 1 latent frame per token is defined",
          patch_size[0]);
  require(num_heads > 0 && dim % num_heads == 0,
          "wan config: dim {} does not divide by num_heads {}", dim, num_heads);
  require(dim / num_heads % 4 == 0,
          "wan config: head size {} is not a multiple of 4 (camera 4-vectors)", dim / num_heads);
  require(freq_dim % 2 == 0, "wan config: freq_dim {} is odd", freq_dim);
}

WanConfig wan_preset(const std::string& name) {
  const auto found = presets().find(name);
  if (found == presets().end()) {
    const std::string nearest = nearest_name(name, wan_presets());
    fail("model '{}' is not known{}", name,
         nearest.empty() ? "" : "; did you mean " + nearest + "?");
  }
  return found->second;
}

std::vector<std::string> wan_presets() {
  std::vector<std::string> names;
  for (const auto& [name, config] : presets()) {
    names.push_back(name);
  }
  return names;
}

}  // namespace minwm::models
