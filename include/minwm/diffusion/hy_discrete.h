#pragma once
// HunyuanVideo's discrete flow scheduler: index 0 is the noisiest level. Spec stages 2.2; golden
// kind stages.sched.hy_discrete.table.

#include <optional>

#include <ATen/core/Tensor.h>

namespace minwm::diffusion {

/// The training table.
class HyDiscreteTable {
 public:
  explicit HyDiscreteTable(double shift);

  /// [1000] float32: 1000 (1 - i / 1000), not shifted.
  const at::Tensor& timesteps() const { return timesteps_; }
  /// [1001] float32: 1 - i / 1000, not shifted.
  const at::Tensor& unshifted() const { return unshifted_; }
  /// [1000] float32: shift(1 - i / 1000; s).
  const at::Tensor& train_sigmas() const { return train_sigmas_; }
  /// train_sigmas at indices [any shape] int64, clamped to 0 … 999.
  at::Tensor sigma(const at::Tensor& index) const;

 private:
  at::Tensor unshifted_, timesteps_, train_sigmas_;
};

/// The schedule of N inference steps. The walk along it is a Sampler's (Euler or renoise).
struct HySchedule {
  at::Tensor sigmas;     ///< [N + 1] float32, the last 0
  at::Tensor timesteps;  ///< [N] float32, 1000 sigma

  /// Where a walk that is handed `timestep` stands: the entry that equals it bit for bit.
  /// @throws Error if it is an integer (an index taken for a timestep) or no entry equals it.
  int64_t index_of(const at::Tensor& timestep) const;
};

/// shift(linspace(1, 0, N + 1); s). With `flux_tokens` the shift follows the clip's token count
/// instead: e^m / (e^m + 1/u - 1), m linear through (256, .5) and (4096, 1.15).
HySchedule hy_schedule(int64_t steps, double shift, std::optional<int64_t> flux_tokens = {});

}  // namespace minwm::diffusion
