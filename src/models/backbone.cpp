#include "minwm/models/backbone.h"

#include "minwm/core/error.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {

std::shared_ptr<Backbone> make_backbone(const std::string& preset, uint64_t seed) {
  return std::make_shared<WanBackbone>(wan_preset(preset), seed);
}

std::shared_ptr<Backbone> make_hollow_backbone(const std::string& preset) {
  const nn::HollowParameters hollow;
  return make_backbone(preset, 0);
}

void Backbone::initialise(const std::string& name, at::Tensor& /*values*/,
                          uint64_t /*seed*/) const {
  fail("parameter '{}': this model does not say how it is initialised", name);
}

std::vector<std::string> backbone_presets() {
  return wan_presets();
}

}  // namespace minwm::models
