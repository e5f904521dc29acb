#pragma once
// What a checkpoint of published weights records: nothing in their files says it.

#include <string>

#include "minwm/models/upstream.h"
#include "minwm/train/checkpoint.h"

namespace minwm::apps {

/// Metadata key of a safetensors file under which an export keeps what its checkpoint recorded.
constexpr const char* kCheckpointNote = "minwm.checkpoint";

/// How minWM samples its published models of a preset and a stage: solver, steps, shift, chunks,
/// window, latent size, intrinsics, stream switches (spec stages 7, 15; hy-mmdit 11).
train::CheckpointInfo published_settings(const std::string& preset, const std::string& stage);

/// The record of an upstream checkpoint: the one that an export of ours left in it, else the
/// published settings. `stage` = "" takes what file or folder say.
/// @throws Error if nothing says the stage, or the record is of another preset.
train::CheckpointInfo settings_of(const models::Upstream& upstream, const std::string& stage);

}  // namespace minwm::apps
