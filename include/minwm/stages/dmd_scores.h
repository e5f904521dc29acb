#pragma once
// What distribution matching asks its two scores about a rollout: at which noise level, under which
// guidance, and the gradient that follows from their difference (spec stages 10).

#include <string>

#include "minwm/stages/guided_flow.h"
#include "minwm/stages/levels.h"
#include "minwm/stages/self_rollout.h"

namespace minwm::stages {

struct ScoreOptions {
  /// Levels before the shift are uniform in [lo, hi): [min_timestep, 1000), or the range of the
  /// step the rollout exited at (its next lower level … its own; HY: both ends, Wan may).
  double min_timestep = 0;
  bool ts_schedule = false;                   ///< lo is the level after the exit step's
  bool ts_schedule_max = false;               ///< hi is the exit step's level
  LevelOptions level;                         ///< shift, and the reference's rounding
  double min_sigma = 0.02, max_sigma = 0.98;  ///< after the shift
  /// HY: the level is an entry of the unshifted 1000-entry table, trunc(1000 - level), kept in
  /// [1000 min_index, 1000 max_index].
  bool truncate_index = false;
  double min_index = 0, max_index = 1;
  /// What the scores are told: 1000 sigma, as they were trained (sigma), or the index above, which
  /// HY's reference tells them by mistake (upstream_index).
  std::string timestep_convention = "sigma";
  bool shared_draw = false;  ///< HY's reference: one level and noise for all samples

  /// standard: u + g (c - u), 1 = off. plus: c + g (c - u), 0 = off (Wan's configs).
  std::string guidance_form = "standard";
  double real_guidance = 4, fake_guidance = 1;
  std::string normalizer = "sample";  ///< of the gradient: one per sample (Wan), or global (HY)

  void declare(Options& options);  ///< section "dmd"
  /// @throws Error in one line on values that make no sense.
  void check() const;
};

/// Everything random of a score evaluation.
struct ScoreDraws {
  at::Tensor u;      ///< [B] (or [1] for all) uniform in [0, 1): the place in [lo, hi)
  at::Tensor level;  ///< like u, a level instead (references that draw integers), or undefined
  at::Tensor noise;  ///< like the rollout's latents; frames a shorter one lacks are not used
};

/// `update` ("generator", "critic") keeps the two updates of an iteration apart.
ScoreDraws draw_score(const data::Batch& batch, const StepAddress& address,
                      const std::string& update, const ScoreOptions& options);

/// A rollout as the scores see it. No graph.
struct ScoreInput {
  at::Tensor noise, noisy;     ///< [B, T, C, h, w]
  at::Tensor sigma, timestep;  ///< [B, T]; 0 where a frame is given
};

/// `given` first frames stay clean at t = 0.
ScoreInput score_input(const Rollout& rollout, const ScoreDraws& draws, int64_t given,
                       const ScoreOptions& options);

/// The scores' answers, and the gradient with respect to the rollout. No graph.
struct ScoreTerms {
  GuidedFlow fake, real;
  at::Tensor gradient;   ///< [B, T, C, h, w] float32, finite; 0 on given frames
  at::Tensor nonfinite;  ///< scalar: entries of the scores' difference that were not finite
};

ScoreTerms score_gradient(models::Backbone& fake, models::Backbone& real, const Rollout& rollout,
                          const ScoreInput& input, const models::Conditions& conditions,
                          const models::Conditions& negative, int64_t given,
                          const ScoreOptions& options);

}  // namespace minwm::stages
