#include "minwm/stages/noise.h"

#include <numbers>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::stages {
namespace {

RandomKey key_of(const StepAddress& address, std::string_view purpose, int64_t sample) {
  return {address.seed, purpose, static_cast<uint64_t>(address.step), static_cast<uint64_t>(sample),
          0};
}

}  // namespace

at::Tensor sample_noise(const at::Tensor& latents, const data::Batch& batch,
                        const StepAddress& address, std::string_view purpose) {
  std::vector<at::Tensor> rows;
  for (const int64_t sample : batch.global_samples) {
    rows.push_back(random_normal(latents.sizes().slice(1), key_of(address, purpose, sample)));
  }
  return at::stack(rows).to(latents.device());
}

at::Tensor sample_uniform(int64_t count, const data::Batch& batch, const StepAddress& address,
                          std::string_view purpose) {
  std::vector<at::Tensor> rows;
  for (const int64_t sample : batch.global_samples) {
    rows.push_back(random_uniform({count}, key_of(address, purpose, sample)));
  }
  return at::stack(rows).to(batch.latents.device());
}

Density parse_density(const std::string& name) {
  if (name == "uniform") {
    return Density::kUniform;
  }
  if (name == "logit_normal") {
    return Density::kLogitNormal;
  }
  require(name == "mode", "timestep density '{}': expected uniform, logit_normal or mode", name);
  return Density::kMode;
}

at::Tensor density_sample(Density density, const at::Tensor& u, const at::Tensor& extra) {
  constexpr double kModeScale = 1.29;
  switch (density) {
    case Density::kUniform:
      return u;
    case Density::kLogitNormal: {
      const at::Tensor normal =
          at::sqrt(-2 * at::log(1 - u)) * at::cos(2 * std::numbers::pi * extra);
      return at::sigmoid(normal);
    }
    case Density::kMode:
      return 1 - u - kModeScale * (at::cos(std::numbers::pi / 2 * u).square() - 1 + u);
  }
  TORCH_INTERNAL_ASSERT(false);
}

}  // namespace minwm::stages
