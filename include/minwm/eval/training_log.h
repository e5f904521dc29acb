#pragma once
// A training run's metrics.jsonl as curves over its steps.

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "minwm/eval/plot.h"

namespace minwm::eval {

struct TrainingLog {
  std::string name;       ///< of the run's folder
  int64_t steps = 0;      ///< completed
  double seconds = 0;     ///< spent in steps
  Series loss = {};       ///< of every step
  Series grad_norm = {};  ///< of every step, before clipping
  Series gap = {};        ///< camera gap in dB, at the evaluations; empty if there were none
  /// What showing the first true latent throughout gets, in dB; NaN without evaluations.
  double copy = std::numeric_limits<double>::quiet_NaN();
  Series right = {};  ///< of the gap: PSNR in dB with the right camera …
  Series wrong = {};  ///< … and with another clip's
};

/// Reads one object per line; of a step that occurs twice (a resumed run) the later one counts. A
/// last line that is cut off (the run is being written) is left out.
/// @throws Error naming file and line: absent, another line that is not JSON, a line without a
/// step, or no line at all.
TrainingLog read_training_log(const std::filesystem::path& path);

}  // namespace minwm::eval
