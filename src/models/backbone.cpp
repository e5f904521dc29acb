#include "minwm/models/backbone.h"

#include "minwm/core/error.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"
#include "minwm/parallel/context.h"

namespace minwm::models {

std::shared_ptr<Backbone> make_backbone(const std::string& preset, uint64_t seed) {
  return std::make_shared<WanBackbone>(wan_preset(preset), seed);
}

std::shared_ptr<Backbone> make_hollow_backbone(const std::string& preset) {
  const nn::HollowParameters hollow;
  return make_backbone(preset, 0);
}

void Backbone::set_context(std::shared_ptr<const parallel::Context> context) {
  require(context->size() == 1, "this model does not split tokens over {} context ranks",
          context->size());
}

void Backbone::initialise(const std::string& name, at::Tensor& /*values*/,
                          uint64_t /*seed*/) const {
  fail("parameter '{}': this model does not say how it is initialised", name);
}

std::vector<std::string> backbone_presets() {
  return wan_presets();
}

}  // namespace minwm::models
