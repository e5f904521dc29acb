#pragma once

#include <memory>

#include "minwm/models/state.h"
#include "minwm/train/checkpoint.h"

namespace minwm::train {

/// The weights of a checkpoint's model (the averaged ones if it has them and `prefer_ema`), to be
/// read in parts. Whole parameters are compared with their checksums, parts are not (see
/// latest_valid_checkpoint). Keeps the checkpoint open.
models::ParameterSource model_source(std::shared_ptr<const Checkpoint> checkpoint,
                                     bool prefer_ema = true);

}  // namespace minwm::train
