#pragma once

#include <functional>

#include "minwm/diffusion/sampler.h"

namespace minwm::stream {

/// What a walk down the noise levels asks for.
struct Walk {
  std::function<at::Tensor(int64_t step)> noise;  ///< see NoiseSource
  /// Flow [B, T, C, h, w] at latents [B, T, C, h, w] and timestep [B, T].
  std::function<at::Tensor(const at::Tensor& latents, const at::Tensor& timestep)> flow;
  at::Tensor given;  ///< [B, n, C, h, w] or undefined: the first n frames, clean (t = 0) throughout
};

/// Clean latents. The given frames are put back before every call and at the end.
at::Tensor denoise(diffusion::Sampler& sampler, const Walk& walk);

}  // namespace minwm::stream
