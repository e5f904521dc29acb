#include "frame_inputs.h"

#include <ATen/ATen.h>

namespace minwm::stream {

at::Tensor pick_frames(const at::Tensor& clips, const at::Tensor& index) {
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < index.size(0); ++b) {
    rows.push_back(clips[b].index_select(0, index[b].to(clips.device())));
  }
  return at::stack(rows);
}

models::Conditions conditions_of(const models::Backbone& model, const models::Conditions& clip,
                                 const FrameInputs& frames) {
  models::Conditions own = clip;
  own.cameras = model.reads_cameras() ? frames.cameras : camera::Cameras{};
  own.actions = frames.actions;
  if (clip.image_latents.defined()) {
    const int64_t end = clip.image_latents.size(1);
    const at::Tensor padded = at::constant_pad_nd(clip.image_latents, {0, 0, 0, 0, 0, 0, 0, 1});
    own.image_latents = pick_frames(padded, frames.index.clamp_max(end));
  }
  return own;
}

models::Conditions with_image(const models::Backbone& model, const models::Conditions& conditions,
                              const at::Tensor& first_latent, int64_t frames) {
  if (!model.reads_first_latent() ||
      (!first_latent.defined() && conditions.image_latents.defined())) {
    return conditions;
  }
  const at::Tensor first =
      first_latent.defined()
          ? first_latent.expand({conditions.text.size(0), -1, -1, -1, -1}).contiguous()
          : first_latent;
  return model.with_first_latent(conditions, first, frames);
}

}  // namespace minwm::stream
