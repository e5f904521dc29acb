#pragma once
// Dropping a clip's text now and then, so that the model also learns the unconditional branch of
// guidance.

#include <string_view>

#include "minwm/stages/stage.h"

namespace minwm::stages {

/// [B, 1, 1] of 0 and 1: 0 with `probability`, one draw per sample. Undefined if it is 0.
at::Tensor draw_text_kept(const data::Batch& batch, const StepAddress& address,
                          std::string_view purpose, double probability);

/// Samples whose `kept` is 0 get the text (masks and glyphs included) of `negative`, which is zeros
/// where undefined; image and cameras stay. An undefined `kept` keeps all.
models::Conditions keep_text(const models::Conditions& conditions, const at::Tensor& kept,
                             const models::Conditions& negative);

}  // namespace minwm::stages
