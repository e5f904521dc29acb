#include "minwm/stages/levels.h"

#include "minwm/core/options.h"

namespace minwm::stages {

void LevelOptions::declare(Options& options, const std::string& section) {
  options.add(
      section + ".table_sigma", &table_sigma,
      "sigma of the nearest of 1000 table entries, as the Wan reference, not timestep / 1000");
  options.add(section + ".bfloat16_timestep", &bfloat16_timestep,
              "round timesteps to bfloat16, as the references");
}

namespace {

at::Tensor rounded(const at::Tensor& x) {
  return x.to(at::kBFloat16).to(at::kFloat);
}

}  // namespace

at::Tensor network_timestep(const at::Tensor& timestep, const LevelOptions& options) {
  return options.bfloat16_timestep ? rounded(timestep) : timestep;
}

at::Tensor noised(const at::Tensor& clean, const at::Tensor& noise, const at::Tensor& sigma,
                  const LevelOptions& options) {
  const at::ScalarType type = clean.scalar_type();
  if (options.bfloat16_sigma && type == at::kBFloat16) {
    const at::Tensor s = diffusion::per_frame(sigma, clean).to(type);
    return (1 - s) * clean + s * noise;
  }
  return diffusion::add_noise(clean.to(at::kFloat), noise.to(at::kFloat), sigma).to(type);
}

diffusion::FlowMatchTable training_table(const LevelOptions& options) {
  diffusion::FlowMatchTable::Options table;
  table.shift = options.shift;
  return diffusion::FlowMatchTable(table);
}

at::Tensor sigma_of(const at::Tensor& timestep, const LevelOptions& options) {
  if (options.bfloat16_sigma) {
    return rounded(timestep / 1000);
  }
  const at::Tensor t = network_timestep(timestep, options);
  return options.table_sigma ? training_table(options).sigma(t) : t / 1000;
}

}  // namespace minwm::stages
