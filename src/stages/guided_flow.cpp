#include "minwm/stages/guided_flow.h"

#include "minwm/diffusion/guidance.h"

namespace minwm::stages {
namespace {

at::Tensor joined(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() ? at::cat({a, b}) : a;
}

}  // namespace

models::Conditions joined(const models::Conditions& a, const models::Conditions& b) {
  models::Conditions out;
  out.text = joined(a.text, b.text);
  out.text_mask = joined(a.text_mask, b.text_mask);
  out.byt5 = joined(a.byt5, b.byt5);
  out.byt5_mask = joined(a.byt5_mask, b.byt5_mask);
  out.vision = joined(a.vision, b.vision);
  out.text_to_video = a.text_to_video;
  out.actions = joined(a.actions, b.actions);
  out.image_latents = joined(a.image_latents, b.image_latents);
  out.image_features = joined(a.image_features, b.image_features);
  out.cameras = {joined(a.cameras.world_to_camera, b.cameras.world_to_camera),
                 joined(a.cameras.intrinsics, b.cameras.intrinsics)};
  return out;
}

GuidedFlow guided_flow(models::Backbone& model, const models::ForwardInput& input,
                       const models::Conditions& negative, double scale) {
  GuidedFlow result;
  if (scale == 1) {
    result.flow = result.conditional = model.forward(input);
    return result;
  }
  const models::Conditions unconditional = input.conditions.with_text_of(negative);
  models::ForwardInput both = input;
  if (scale == 0) {
    both.conditions = unconditional;
    result.flow = result.unconditional = model.forward(both);
    return result;
  }
  for (at::Tensor* tensor :
       {&both.latents, &both.timestep, &both.clean_latents, &both.clean_timestep}) {
    *tensor = joined(*tensor, *tensor);
  }
  both.conditions = joined(input.conditions, unconditional);
  const auto halves = model.forward(both).chunk(2);
  result.conditional = halves[0];
  result.unconditional = halves[1];
  result.flow = diffusion::guide(result.conditional, result.unconditional, scale);
  return result;
}

}  // namespace minwm::stages
