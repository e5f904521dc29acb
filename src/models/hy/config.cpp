#include "minwm/models/hy/config.h"

#include <map>

#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::models {
namespace {

HyConfig tiny() {
  HyConfig c;
  c.patch_size = {1, 2, 2};
  c.in_channels = c.out_channels = 16;
  c.hidden_size = 128;
  c.heads_num = 4;
  c.mm_double_blocks_depth = 4;
  c.rope_dim_list = {8, 12, 12};
  c.text_states_dim = 32;
  c.vision_states_dim = 64;  // a 2x2 patch of 16 channels
  c.byt5_dims = {32, 32, 32};
  // From scratch there is no base model to preserve; zero delays by some 50 steps.
  c.camera_init_zero = false;
  c.latent_vision = true;
  return c;
}

HyConfig without_camera(HyConfig c) {
  c.camera = false;
  return c;
}

HyConfig with_action(HyConfig c) {
  c.action = true;
  return c;
}

const std::map<std::string, HyConfig>& presets() {
  static const std::map<std::string, HyConfig> all = {{"hy-tiny", tiny()},
                                                      {"hy-tiny-ti2v", without_camera(tiny())},
                                                      {"hy-tiny-worldplay", with_action(tiny())},
                                                      {"hy-8b", HyConfig{}},
                                                      {"hy-8b-ti2v", without_camera(HyConfig{})},
                                                      {"hy-8b-worldplay", with_action(HyConfig{})}};
  return all;
}

}  // namespace

void HyConfig::validate() const {
  require(patch_size[0] == 1,
          "hy config: patch_size[0] = {}: only 1 latent frame per token is defined", patch_size[0]);
  require(heads_num > 0 && hidden_size % heads_num == 0,
          "hy config: hidden_size {} does not divide by heads_num {}", hidden_size, heads_num);
  require(head_dim() % 4 == 0, "hy config: head size {} is not a multiple of 4 (camera 4-vectors)",
          head_dim());
  const auto [t, h, w] = rope_dim_list;
  require(t + h + w == head_dim() && t % 2 == 0 && h % 2 == 0 && w % 2 == 0,
          "hy config: rope_dim_list [{}, {}, {}]: expected even numbers whose sum is the head size "
          "{}",
          t, h, w, head_dim());
  require(mm_double_blocks_depth > 0, "hy config: mm_double_blocks_depth {}: expected 1 or more",
          mm_double_blocks_depth);
}

HyConfig hy_preset(const std::string& name) {
  const auto found = presets().find(name);
  if (found == presets().end()) {
    const std::string nearest = nearest_name(name, hy_presets());
    fail("model '{}' is not known{}", name,
         nearest.empty() ? "" : "; did you mean " + nearest + "?");
  }
  return found->second;
}

std::vector<std::string> hy_presets() {
  std::vector<std::string> names;
  for (const auto& [name, config] : presets()) {
    names.push_back(name);
  }
  return names;
}

}  // namespace minwm::models
