#pragma once
// Flow matching: x_sigma = (1 - sigma) x0 + sigma e, the model predicts v = e - x0, timestep t = 1000 sigma.

#include <ATen/core/Tensor.h>

#include <vector>

namespace minwm::diffusion {

/// shift(u; s) = s u / (1 + (s - 1) u). u in [0, 1].
double shift_sigma(double u, double shift);
at::Tensor shift_sigma(const at::Tensor& u, double shift);

/// sigma [B, T] → broadcastable to [B, T, C, H, W].
at::Tensor per_frame(const at::Tensor& sigma, const at::Tensor& like);

/// (1 - sigma) x0 + sigma noise, float32; sigma [B, T].
at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const at::Tensor& sigma);
/// x0 = x_sigma - sigma v; sigma [B, T].
at::Tensor predict_x0(const at::Tensor& x, const at::Tensor& flow, const at::Tensor& sigma);

/// Sigmas of an N-step sampler: shift(linspace(1, 0, N + 1); s), N + 1 entries, the last 0.
std::vector<double> sampling_sigmas(int64_t steps, double shift);
/// Sigmas of a few-step list in timesteps before the shift, e.g. {1000, 750, 500, 250} at shift 5 →
/// 1, .9375, .8333, .625 (the final 0 is not part of it).
std::vector<double> few_step_sigmas(const std::vector<double>& timesteps, double shift);

}  // namespace minwm::diffusion
