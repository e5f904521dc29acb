#pragma once
// What a batch's clips tell a model before a stage sees them. Of a model that is given a first
// frame through its conditions (models::Backbone::reads_first_latent, HY) here is decided which
// clips give theirs.

#include <string_view>

#include "minwm/stages/stage.h"

namespace minwm::stages {

/// batch.conditions as `model` reads them (models::conditions_for): with every clip's first latent
/// with `probability`, one addressed draw per sample; nothing is drawn for models that are given
/// theirs otherwise. A clip that keeps its first latent to itself is text to video: its
/// conditioning channels and vision rows are zero, and those rows do not count.
models::Conditions told_conditions(const models::Backbone& model, const data::Batch& batch,
                                   const StepAddress& address, std::string_view purpose,
                                   double probability);

/// The samples of `told` whose entry of `given` [B] is 0 (bool or number) keep their first latent
/// to themselves, as above.
models::Conditions first_frame_only_of(models::Conditions told, const at::Tensor& given);

}  // namespace minwm::stages
