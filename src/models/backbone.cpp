#include "minwm/models/backbone.h"

#include <algorithm>
#include <charconv>

#include "minwm/camera/action_labels.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/models/hy/backbone.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"
#include "minwm/parallel/context.h"

namespace minwm::models {

namespace {

/// "NAME@BLOCKS" → NAME, and BLOCKS into `blocks`.
std::string base_name(const std::string& preset, int64_t& blocks) {
  const size_t at = preset.find('@');
  if (at == std::string::npos) {
    return preset;
  }
  const auto [end, error] =
      std::from_chars(preset.data() + at + 1, preset.data() + preset.size(), blocks);
  require(error == std::errc() && end == preset.data() + preset.size() && blocks > 0,
          "model '{}': expected a number of blocks after '@', such as hy-8b@2", preset);
  return preset.substr(0, at);
}

bool is_hy(const std::string& name) {
  return name.starts_with("hy");
}

}  // namespace

std::shared_ptr<Backbone> make_backbone(const std::string& preset, uint64_t seed) {
  int64_t blocks = 0;
  const std::string name = base_name(preset, blocks);
  const auto known = backbone_presets();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    const std::string nearest = nearest_name(name, known);
    fail("model '{}' is not known{}", name,
         nearest.empty() ? "" : "; did you mean " + nearest + "?");
  }
  if (is_hy(name)) {
    HyConfig config = hy_preset(name);
    config.mm_double_blocks_depth = blocks > 0 ? blocks : config.mm_double_blocks_depth;
    return std::make_shared<HyBackbone>(config, seed);
  }
  WanConfig config = wan_preset(name);
  config.num_layers = blocks > 0 ? blocks : config.num_layers;
  return std::make_shared<WanBackbone>(config, seed);
}

std::shared_ptr<Backbone> make_hollow_backbone(const std::string& preset) {
  const nn::HollowParameters hollow;
  return make_backbone(preset, 0);
}

void Backbone::set_context(std::shared_ptr<const parallel::Context> context) {
  require(context->size() == 1, "this model does not split tokens over {} context ranks",
          context->size());
}

void Backbone::set_stream_switches(const StreamSwitches& switches) {
  require(switches == StreamSwitches{},
          "this model streams as it was taught: it has neither camera_cache nor context_action");
}

Conditions Backbone::with_first_latent(const Conditions& /*conditions*/,
                                       const at::Tensor& /*first_latent*/,
                                       int64_t /*frames*/) const {
  fail("this model is not given a first frame through its conditions");
}

at::Tensor actions_of(const camera::Cameras& cameras) {
  std::vector<at::Tensor> labels;
  for (const at::Tensor& clip : cameras.world_to_camera.to(at::kCPU).unbind(0)) {
    labels.push_back(camera::action_labels(clip));
  }
  return at::stack(labels).to(cameras.world_to_camera.device());
}

Conditions conditions_for(const Backbone& model, const Conditions& conditions,
                          const at::Tensor& first_latent, int64_t frames) {
  Conditions out = conditions;
  if (model.reads_actions() && !out.actions.defined() && out.cameras.defined()) {
    out.actions = actions_of(out.cameras);
  }
  if (!model.reads_cameras()) {
    out.cameras = {};
  }
  return model.reads_first_latent() ? model.with_first_latent(out, first_latent, frames) : out;
}

void KvCache::forget_frames() {
  fail("this cache cannot forget its frames and keep the text");
}

void Backbone::initialise(const std::string& name, at::Tensor& /*values*/,
                          uint64_t /*seed*/) const {
  fail("parameter '{}': this model does not say how it is initialised", name);
}

std::vector<std::string> backbone_presets() {
  auto names = wan_presets();
  for (auto& name : hy_presets()) {
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace minwm::models
