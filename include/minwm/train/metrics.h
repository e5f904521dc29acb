#pragma once
// What a run writes down per step: one line of metrics.jsonl and one point of each TensorBoard
// curve.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "minwm/train/tensorboard.h"

namespace minwm::train {

struct StepMetrics {
  int64_t step = 0;      ///< steps completed, this one included
  double loss = 0;       ///< mean over the global batch
  double grad_norm = 0;  ///< before clipping
  double lr = 0;
  double seconds = 0;            ///< of the step, without evaluation and checkpoint
  double tokens_per_second = 0;  ///< all ranks together
  double data_wait = 0;          ///< seconds the slowest rank waited for its clips
  bool skipped = false;  ///< the update was not applied (optimizer.skip_norm); written only if true
  std::map<std::string, double> more;  ///< an evaluation, a stage's other numbers
};

/// `<folder>/metrics.jsonl` and a TensorBoard file beside it.
class MetricsLog {
 public:
  /// Appends after the lines of steps <= `last_step`; later ones, and a line torn by a crash, are
  /// cut from the file, so that no step appears twice. @throws Error naming a file that cannot be
  /// read or written.
  MetricsLog(const std::filesystem::path& folder, int64_t last_step);
  /// The line reaches the operating system before it returns. @throws Error, e.g. on a full disk.
  void write(const StepMetrics& metrics);

 private:
  std::filesystem::path path_;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
  EventWriter events_;
};

}  // namespace minwm::train
