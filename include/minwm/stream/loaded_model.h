#pragma once
// A checkpoint opened for generation: model, codec and the sampler it was trained for.

#include <filesystem>
#include <memory>
#include <string>

#include "minwm/stream/generate.h"
#include "minwm/train/checkpoint.h"

namespace minwm::stream {

/// What a user may override of a checkpoint's recorded sampler. Empty or 0 = as recorded.
struct SamplerOverrides {
  int64_t steps = 0;            ///< denoising steps
  std::string solver;           ///< "euler", "renoise", "unipc" or "dpm++"
  std::string mode;             ///< "stream" or "bidirectional"
  double guidance = 0;          ///< guidance scale; 1 = off
  std::string camera_cache;     ///< "dual" or "rope_only": how a stream's cameras read the past
  std::string memory = "none";  ///< or "worldplay": StreamOptions::memory with its defaults
};

/// The solver and the levels that a checkpoint is sampled with.
struct SamplerChoice {
  diffusion::Solver solver;
  std::vector<double> sigmas;              ///< without the final 0
  std::vector<double> first_chunk_sigmas;  ///< empty = sigmas
};

/// What `overrides` make of the sampler that `info` records:
/// - few-step stages ("ode", "consistency", "dmd") know the levels they were trained for and no
///   others: their recorded list and solver;
/// - "bidirectional" follows the flow over many steps (50 unless said otherwise) with Euler, UniPC
///   or DPM-Solver++;
/// - "teacher-forcing" takes any solver with any number of steps, its recorded few-step list by
///   default (or 50 steps if it records none).
/// @throws Error in one line that starts with `where`, says why and names the call that works.
SamplerChoice choose_sampler(const train::CheckpointInfo& info, const SamplerOverrides& overrides,
                             const std::string& where);

/// Everything a stream needs besides model and codec: the chosen sampler, and chunk, window and
/// intrinsics as recorded, and a context memory if asked for. @throws Error as choose_sampler, or
/// if the memory is for a stage that does not stream.
StreamOptions stream_options(const train::CheckpointInfo& info, const SamplerOverrides& overrides,
                             const std::string& where);

struct LoadedModel {
  std::shared_ptr<models::Backbone> model;
  std::shared_ptr<models::Codec> codec;
  train::CheckpointInfo info;
  Mode mode = Mode::kStream;
  StreamOptions stream;  ///< sampler of the checkpoint with the overrides applied; seed left at 0
};

/// How a checkpoint streams (models::StreamSwitches), as it records and `overrides` say.
/// @throws Error if the camera cache is no known one, or the stage does not stream.
models::StreamSwitches stream_switches(const train::CheckpointInfo& info,
                                       const SamplerOverrides& overrides, const std::string& where);

/// Opens a step folder (or the newest one below a run). Weights are the EMA where there is one, the
/// model's switches are set.
/// @throws Error if it is no checkpoint, has no codec, or the overrides do not fit its stage: a
/// bidirectional model cannot stream, a causal one does not denoise whole clips, and see
/// choose_sampler and stream_switches; the message names the call that works.
LoadedModel open_model(const std::filesystem::path& checkpoint, const SamplerOverrides& overrides,
                       const c10::Device& device);

}  // namespace minwm::stream
