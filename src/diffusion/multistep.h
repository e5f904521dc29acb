#pragma once
// The samplers that remember earlier predictions.

#include "minwm/diffusion/sampler.h"

namespace minwm::diffusion {

std::unique_ptr<Sampler> make_unipc(std::vector<double> sigmas);
std::unique_ptr<Sampler> make_dpm_plus_plus(std::vector<double> sigmas);

}  // namespace minwm::diffusion
