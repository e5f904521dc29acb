#pragma once
// A training run laid over a reference curve: is it where it should be?

#include <string>
#include <utility>
#include <vector>

#include "minwm/eval/training_log.h"

namespace minwm::eval {

struct RunComparison {
  /// The run and the reference around one step; NaN where one did not measure it.
  struct Mark {
    int64_t step;
    double loss, reference_loss, grad_norm, reference_grad_norm, gap, reference_gap;
  };
  std::vector<Mark> marks;  ///< at 25, 50, 75 and 100 % of the steps both have
  int64_t steps = 0, reference_steps = 0;
  bool behind = false;
  std::string verdict;  ///< "within 5 % of the reference", "behind the reference: loss 0.51 vs 0.43
                        ///< at step 900", "ahead of the reference: …"
};

/// Losses and norms are means over a tenth of the common steps, the camera gap is the last measured
/// one. Behind = the last loss is more than 5 % higher, or the last gap more than 5 % (and more
/// than the 0.15 dB that mean nothing) lower.
/// @throws Error if run and reference have no losses at common steps.
RunComparison compare(const TrainingLog& run, const TrainingLog& reference);

/// A short table and the verdict.
std::string to_text(const RunComparison& comparison);

/// Loss, gradient norm and camera gap of both: SVG plots with captions; those that both measured.
std::vector<std::pair<std::string, std::string>> comparison_figures(const TrainingLog& run,
                                                                    const TrainingLog& reference);

/// A run as a reference file: one JSON object per line with step, loss and grad_norm (means over
/// equal stretches of steps) and the camera gaps; at most `points` lines.
/// @throws Error if the run has no losses.
std::string reference_curve(const TrainingLog& run, int points = 200);

}  // namespace minwm::eval
