#include "minwm/stages/levels.h"

#include "minwm/core/options.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::stages {

void LevelOptions::declare(Options& options, const std::string& section) {
  options.add(
      section + ".table_sigma", &table_sigma,
      "sigma of the nearest of 1000 table entries, as the Wan reference, not timestep / 1000");
  options.add(section + ".bfloat16_timestep", &bfloat16_timestep,
              "round timesteps to bfloat16, as the references");
}

at::Tensor network_timestep(const at::Tensor& timestep, const LevelOptions& options) {
  return options.bfloat16_timestep ? timestep.to(at::kBFloat16).to(at::kFloat) : timestep;
}

at::Tensor sigma_of(const at::Tensor& timestep, const LevelOptions& options) {
  const at::Tensor t = network_timestep(timestep, options);
  if (!options.table_sigma) {
    return t / 1000;
  }
  diffusion::FlowMatchTable::Options table;
  table.shift = options.shift;
  return diffusion::FlowMatchTable(table).sigma(t);
}

}  // namespace minwm::stages
