#pragma once
// How a stage turns timesteps into noise levels, and where the references do it differently.

#include <string>

#include <torch/torch.h>

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
  /// `section`.table_sigma and .bfloat16_timestep; shift is declared by the stage.
  void declare(Options& options, const std::string& section);
};

/// sigma of timesteps (any shape), float32, by the rule of `options`.
at::Tensor sigma_of(const at::Tensor& timestep, const LevelOptions& options);
/// The timesteps a network sees: rounded if the options say so.
at::Tensor network_timestep(const at::Tensor& timestep, const LevelOptions& options);

}  // namespace minwm::stages
