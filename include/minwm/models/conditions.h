#pragma once

#include <ATen/core/Tensor.h>

#include "minwm/camera/cameras.h"

namespace minwm::models {

/// What a model is conditioned on besides noise and time. Undefined tensors are absent inputs.
struct Conditions {
  at::Tensor text;  ///< [B, L, text_dim] float32. Wan: rows past a sample's length are zero and
                    ///< count; HY: text_mask says which count
  at::Tensor text_mask;        ///< HY: [B, L], 1 where a row counts
  at::Tensor byt5, byt5_mask;  ///< HY: glyph text states [B, L', 1472] and mask [B, L']
  at::Tensor vision;           ///< HY: image features [B, N, vision_dim]; all zero = no image
  /// HY: the task is text to video. A sample's vision that is all zero then does not count.
  bool text_to_video = false;
  camera::Cameras cameras;
  at::Tensor actions;  ///< HY with discrete actions: [B, T] int64 labels (camera/action_labels.h)
  /// Concatenated to the noisy (and the clean) latents on channels: [B, T, C', H, W]. Wan i2v: mask
  /// and image latents; HY: image latents and mask.
  at::Tensor image_latents;
  at::Tensor image_features;  ///< Wan i2v: [B, 257, clip_dim]

  /// The same with the text, masks and glyphs of `negative`: the unconditional branch of guidance.
  /// Image and cameras stay. Rows of batch 1 are repeated. Negative text that is undefined becomes
  /// zeros.
  Conditions with_text_of(const Conditions& negative) const;
  /// Cameras, actions and image latents of frames [first, first + count); everything else as it is.
  Conditions frames(int64_t first, int64_t count) const;
  /// Everything on `device`.
  Conditions to(const c10::Device& device) const;
};

}  // namespace minwm::models
