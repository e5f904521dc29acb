#include "minwm/diffusion/hy_discrete.h"

#include <cmath>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::diffusion {
namespace {

constexpr int64_t kTrainSteps = 1000;

/// e^m / (e^m + 1/u - 1) = shift(u; e^m).
double flux_shift(int64_t tokens) {
  constexpr double kFewTokens = 256, kFewShift = 0.5, kManyTokens = 4096, kManyShift = 1.15;
  const double slope = (kManyShift - kFewShift) / (kManyTokens - kFewTokens);
  return std::exp(kFewShift + slope * (static_cast<double>(tokens) - kFewTokens));
}

}  // namespace

HyDiscreteTable::HyDiscreteTable(double shift)
    : unshifted_(at::linspace(1, 0, kTrainSteps + 1, at::kFloat)) {
  timesteps_ = unshifted_.narrow(0, 0, kTrainSteps) * kTrainSteps;
  train_sigmas_ = shift_sigma(unshifted_.narrow(0, 0, kTrainSteps), shift);
}

at::Tensor HyDiscreteTable::sigma(const at::Tensor& index) const {
  return train_sigmas_.to(index.device()).take(index.to(at::kLong).clamp(0, kTrainSteps - 1));
}

int64_t HySchedule::index_of(const at::Tensor& timestep) const {
  require(timestep.is_floating_point(),
          "HY schedule: an integer timestep is an index taken for a timestep: pass one of the "
          "schedule's timesteps");
  const at::Tensor same = timesteps.eq(timestep.to(timesteps.options())).nonzero();
  require(same.size(0) > 0, "HY schedule: {} is no timestep of the {}-step schedule",
          timestep.item<double>(), timesteps.size(0));
  return same[0].item<int64_t>();
}

HySchedule hy_schedule(int64_t steps, double shift, std::optional<int64_t> flux_tokens) {
  require(steps > 0, "HY schedule: {} steps, expected at least 1", steps);
  const at::Tensor u = at::linspace(1, 0, steps + 1, at::kFloat);
  const at::Tensor sigmas = shift_sigma(u, flux_tokens ? flux_shift(*flux_tokens) : shift);
  return {sigmas, sigmas.narrow(0, 0, steps) * kTrainSteps};
}

}  // namespace minwm::diffusion
