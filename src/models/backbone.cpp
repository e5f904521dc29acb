#include "minwm/models/backbone.h"

#include "minwm/models/wan/backbone.h"

namespace minwm::models {

std::shared_ptr<Backbone> make_backbone(const std::string& preset, uint64_t seed) {
  return std::make_shared<WanBackbone>(wan_preset(preset), seed);
}

std::vector<std::string> backbone_presets() {
  return wan_presets();
}

}  // namespace minwm::models
