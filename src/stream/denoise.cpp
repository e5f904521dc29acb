#include "denoise.h"

#include <ATen/ATen.h>

namespace minwm::stream {
namespace {

at::Tensor with_given(const at::Tensor& latents, const at::Tensor& given) {
  if (!given.defined()) {
    return latents;
  }
  auto shape = given.sizes().vec();
  shape[0] = latents.size(0);
  return at::cat({given.expand(shape), latents.slice(1, given.size(1))}, 1);
}

}  // namespace

at::Tensor denoise(diffusion::Sampler& sampler, const Walk& walk) {
  at::Tensor latents = walk.noise(0);
  for (int64_t k = 0; k < sampler.steps(); ++k) {
    latents = with_given(latents, walk.given);
    at::Tensor timestep = at::full({latents.size(0), latents.size(1)},
                                   sampler.timesteps()[static_cast<size_t>(k)], latents.options());
    if (walk.given.defined()) {
      timestep.narrow(1, 0, walk.given.size(1)).zero_();
    }
    const at::Tensor flow = walk.flow(latents, timestep);
    const bool renoised = sampler.renoises() && k + 1 < sampler.steps();
    latents = sampler.step(k, latents, flow, renoised ? walk.noise(k + 1) : at::Tensor());
  }
  return with_given(latents, walk.given);
}

}  // namespace minwm::stream
