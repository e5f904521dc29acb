#pragma once

#include "minwm/models/backbone.h"

namespace minwm::stream {

/// What a model is told of some frames of a clip, besides the clip's text and image.
struct FrameInputs {
  at::Tensor index;         ///< [B, n] int64 on the host: their places in the clip
  camera::Cameras cameras;  ///< [B, n, …] or undefined; kept even if the model does not read them
  at::Tensor actions;       ///< [B, n] int64 or undefined
};

/// `clip` for these frames. Image channels go with their frames and are zero past their end.
models::Conditions conditions_of(const models::Backbone& model, const models::Conditions& clip,
                                 const FrameInputs& frames);

/// `conditions` with the first latent [1 or B, 1, C, h, w] where the model reads it so. Image
/// channels that are there already stay if no first latent is given.
models::Conditions with_image(const models::Backbone& model, const models::Conditions& conditions,
                              const at::Tensor& first_latent, int64_t frames);

/// Frames index[b, i] of clip b: [B, T, …] → [B, n, …].
at::Tensor pick_frames(const at::Tensor& clips, const at::Tensor& index);

}  // namespace minwm::stream
