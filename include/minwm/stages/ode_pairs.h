#pragma once
// What ODE regression learns from: trajectories of the frozen teacher-forcing model from noise to
// clean along its flow, with the real clip as the past of every chunk (spec stages 7.1; golden
// kinds stages.wan.ode.trajectory, stages.hy.ode.trajectory).

#include <vector>

#include "minwm/models/backbone.h"

namespace minwm::stages {

struct OdePairOptions {
  int64_t steps = 48;  ///< Euler steps from sigma 1 to 0
  double shift = 5;    ///< sigma_k = shift(1 - k / steps)
  /// Steps k, ascending, whose starting state is kept: see kept_steps().
  std::vector<int64_t> kept = {0, 12, 24, 36};
  double guidance_scale = 1;  ///< u + scale (c - u); 1 = the conditional pass alone
  int64_t chunk_frames = 4;
  /// True: chunk by chunk over the KV cache of the clean past, half the tokens and no second pass
  /// over the past. False: every step is one teacher-forcing pass over the whole clip. The same up
  /// to rounding.
  bool cached = true;
};

struct OdePairInput {
  at::Tensor clean;  ///< [B, T, C, h, w], the real clips
  at::Tensor noise;  ///< like it
  models::Conditions conditions;
  models::Conditions negative;  ///< text of the unconditional half; undefined = zeros
  at::Tensor given;  ///< [B] int64 or undefined: so many first latents stay clean (t = 0) in every
                     ///< state
};

/// The steps k of the solver that start at the levels of a step list (timesteps before the shift):
/// k = steps (1 - d / 1000), whatever the shift.
/// @throws Error naming the first d that no step starts at, and a number of steps that fits.
std::vector<int64_t> kept_steps(int64_t steps, const std::vector<double>& step_list);

/// The kept states, the endpoint and the real clip: [B, kept + 2, T, C, h, w] float32, no graph.
/// @throws Error if T is not a multiple of the chunk.
at::Tensor ode_pairs(models::Backbone& model, const OdePairInput& input,
                     const OdePairOptions& options);

}  // namespace minwm::stages
