#include "minwm/models/conditions.h"

#include <ATen/ATen.h>

namespace minwm::models {
namespace {

at::Tensor replaced(const at::Tensor& positive, const at::Tensor& negative) {
  if (!positive.defined()) {
    return positive;
  }
  if (!negative.defined()) {
    return at::zeros_like(positive);
  }
  auto shape = negative.sizes().vec();
  shape[0] = positive.size(0);
  return negative.to(positive.options()).expand(shape);
}

}  // namespace

Conditions Conditions::with_text_of(const Conditions& negative) const {
  Conditions out = *this;
  out.text = replaced(text, negative.text);
  // A mask without a negative one stays: its rows are zero, and they count.
  out.text_mask =
      negative.text_mask.defined() ? replaced(text_mask, negative.text_mask) : text_mask;
  out.byt5 = replaced(byt5, negative.byt5);
  out.byt5_mask = replaced(byt5_mask, negative.byt5_mask);
  return out;
}

Conditions Conditions::frames(int64_t first, int64_t count) const {
  Conditions out = *this;
  out.cameras = cameras.frames(first, count);
  if (actions.defined()) {
    out.actions = actions.narrow(1, first, count);
  }
  if (image_latents.defined()) {
    out.image_latents = image_latents.narrow(1, first, count);
  }
  return out;
}

Conditions Conditions::to(const c10::Device& device) const {
  Conditions out = *this;
  for (at::Tensor* tensor :
       {&out.text, &out.text_mask, &out.byt5, &out.byt5_mask, &out.vision, &out.image_latents,
        &out.image_features, &out.actions, &out.cameras.world_to_camera, &out.cameras.intrinsics}) {
    if (tensor->defined()) {
      *tensor = tensor->to(device);
    }
  }
  return out;
}

}  // namespace minwm::models
