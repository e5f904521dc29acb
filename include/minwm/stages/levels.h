#pragma once
// How a stage turns timesteps into noise levels, and where the references do it differently.

#include <string>

#include <torch/torch.h>

#include "minwm/diffusion/flow_match.h"

namespace minwm {
class Options;
}

namespace minwm::stages {

/// By default sigma = timestep / 1000, both float32. The switches reproduce the references: for
/// their golden cases, and for runs that continue theirs (spec stages 2.1, 19).
struct LevelOptions {
  double shift = 5;
  bool table_sigma = false;  ///< Wan: sigma of the nearest entry of the shifted 1000-entry table
  bool bfloat16_timestep = false;  ///< timesteps rounded to bfloat16 before they are used
  bool bfloat16_sigma = false;     ///< HY: sigma = timestep / 1000 rounded to bfloat16, from the
                                   ///< timestep before its own rounding
  /// `section`.table_sigma and .bfloat16_timestep; the other two are declared by the stage.
  void declare(Options& options, const std::string& section);
};

/// sigma of timesteps (any shape), float32, by the rule of `options`.
at::Tensor sigma_of(const at::Tensor& timestep, const LevelOptions& options);
/// The timesteps a network sees: rounded if the options say so.
at::Tensor network_timestep(const at::Tensor& timestep, const LevelOptions& options);
/// (1 - sigma) x0 + sigma e in the type of the latents; sigma [B, T]. Of bfloat16 latents (the
/// references') HY's sum is rounded operation by operation, Wan's once.
at::Tensor noised(const at::Tensor& clean, const at::Tensor& noise, const at::Tensor& sigma,
                  const LevelOptions& options);
/// Wan's 1000 training levels at the shift of `options`.
diffusion::FlowMatchTable training_table(const LevelOptions& options);

}  // namespace minwm::stages
