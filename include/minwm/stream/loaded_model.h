#pragma once
// A checkpoint opened for generation: model, codec and the sampler it was trained for.

#include <filesystem>
#include <memory>
#include <string>

#include "minwm/stream/generate.h"
#include "minwm/train/checkpoint.h"

namespace minwm {
class Options;
}

namespace minwm::stream {

/// What a user may override of a checkpoint's recorded sampler. Empty = as recorded.
struct SamplerOverrides {
  int64_t steps = 0;    ///< 0 = the recorded step list (or 50 for many-step models)
  std::string solver;   ///< "renoise" or "euler"
  std::string mode;     ///< "stream" or "bidirectional"
  double guidance = 1;  ///< guidance scale; 1 = off
  void declare(
      Options& options);  ///< sampler.steps, sampler.solver, sampler.mode, sampler.guidance
};

struct LoadedModel {
  std::shared_ptr<models::Backbone> model;
  std::shared_ptr<models::Codec> codec;
  train::CheckpointInfo info;
  Mode mode = Mode::kStream;
  StreamOptions stream;  ///< sampler of the checkpoint with the overrides applied; seed left at 0
};

/// Opens a step folder (or the newest one below a run). Weights are the EMA where there is one.
/// @throws Error if it is no checkpoint, has no codec, or the overrides do not fit its stage: a
/// bidirectional model cannot stream, a causal one does not denoise whole clips; the message names
/// the call that works.
LoadedModel open_model(const std::filesystem::path& checkpoint, const SamplerOverrides& overrides,
                       const c10::Device& device);

}  // namespace minwm::stream
