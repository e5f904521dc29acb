#pragma once
// How a run's batch and precision are laid out on ranks: decided once, printed by --dry-run.

#include <cstdint>
#include <string>

#include <torch/torch.h>

namespace minwm {
class Options;
}

namespace minwm::train {

struct TrainOptions {
  int64_t steps = 1000;
  int64_t global_batch = 8;  ///< clips of one optimizer step, all ranks together
  int64_t micro_batch = 0;  ///< clips of one forward on one rank; 0 = all that a rank has in a step
  std::string compute = "auto";  ///< auto, float32, bfloat16: type of matrix products and attention
  int64_t threads = 0;           ///< per rank; 0 = OMP_NUM_THREADS, or the cores shared out
  bool recompute = false;        ///< recompute blocks in backward instead of keeping activations
  void declare(Options& options);  ///< section "train"
};

struct BatchPlan {
  int64_t data_ranks = 1, per_rank = 0, micro_batch = 0, accumulation = 0;
  /// "8 clips per step = 2 ranks x 2 micro-batches of 2".
  std::string text() const;
};

/// @throws Error naming the option that does not divide.
BatchPlan plan_batch(const TrainOptions& options, int64_t data_ranks);

/// The type of matrix products; "auto" is bfloat16 where the device multiplies it natively, else
/// float32.
at::ScalarType compute_type(const std::string& name, const c10::Device& device);

/// Threads a rank should use (see TrainOptions::threads), one of `ranks` on its host.
int64_t thread_count(int64_t option, int64_t ranks);

}  // namespace minwm::train
