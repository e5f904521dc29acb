#pragma once
// The random draws a stage makes for its batch: addressed by the sample's place in the global
// batch, so they do not depend on ranks, micro-batches or order.

#include <string>
#include <string_view>

#include "minwm/stages/stage.h"

namespace minwm::stages {

/// Standard normal like `latents` [B, …], one stream per sample.
at::Tensor sample_noise(const at::Tensor& latents, const data::Batch& batch,
                        const StepAddress& address, std::string_view purpose);
/// Uniform [0, 1) of shape [B, count].
at::Tensor sample_uniform(int64_t count, const data::Batch& batch, const StepAddress& address,
                          std::string_view purpose);

/// How a uniform draw becomes a noise level before the shift (spec stages 2.3).
enum class Density { kUniform, kLogitNormal, kMode };
Density parse_density(const std::string& name);
/// u [B, n] uniform, extra [B, n] a second uniform draw (logit-normal uses both) → [B, n] in [0,
/// 1).
at::Tensor density_sample(Density density, const at::Tensor& u, const at::Tensor& extra);

}  // namespace minwm::stages
