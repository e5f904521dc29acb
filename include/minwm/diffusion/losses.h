#pragma once
// The formulas that training stages are made of, each on plain tensors. x_sigma = (1 - sigma) x0 +
// sigma e, flow v = e - x0. Spec stages 5 … 10; golden kind stages.algo.primitives.
//
// Tensors are [B, T, C, H, W] unless said otherwise; a mask is [B, T] or [T] of 0 and 1 (bool, int
// or float), undefined = every frame counts. Losses are float32 scalars in the graph of their first
// argument.

#include <ATen/core/Tensor.h>

namespace minwm::diffusion {

/// v = e - x0.
at::Tensor flow_target(const at::Tensor& clean, const at::Tensor& noise);

/// Mean of `values` over the elements of the frames that the mask keeps; 0 if it keeps none.
at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& mask = {});

/// Masked mean of weight (prediction - target)^2: flow matching, and with x0 predictions the
/// regression of the ODE and consistency stages. The target is taken as a constant. `weight` is
/// [B, T], or broadcasts to the prediction; undefined = 1.
at::Tensor squared_error(const at::Tensor& prediction, const at::Tensor& target,
                         const at::Tensor& mask = {}, const at::Tensor& weight = {});

/// The critic's loss: squared error of its flow on x_sigma = add_noise(generated, noise, sigma).
at::Tensor critic_loss(const at::Tensor& flow, const at::Tensor& generated, const at::Tensor& noise,
                       const at::Tensor& mask = {}, const at::Tensor& weight = {});

/// One Euler step of the teacher under guidance u + scale (c - u), to the next lower level:
/// x + (sigma_next - sigma) v. sigma and sigma_next are [B, T] (timesteps / 1000).
at::Tensor teacher_step(const at::Tensor& x, const at::Tensor& conditional,
                        const at::Tensor& unconditional, double scale, const at::Tensor& sigma,
                        const at::Tensor& sigma_next);

/// What the difference of the scores is divided by: mean |generated - real_x0| of each sample, or
/// of the batch, or nothing.
enum class Normalizer { kNone, kPerSample, kGlobal };

/// x0_fake - x0_real = sigma (v_real - v_fake), without the cancellation of two predictions;
/// float32. sigma [B, T].
at::Tensor score_difference(const at::Tensor& fake_flow, const at::Tensor& real_flow,
                            const at::Tensor& sigma);

/// The gradient of distribution matching with respect to the generated latents: `difference`
/// (x0_fake - x0_real) over max(normaliser, 1e-8), NaN and Inf made finite. No graph.
at::Tensor dmd_gradient(const at::Tensor& difference, const at::Tensor& real_x0,
                        const at::Tensor& generated, Normalizer normalizer);

/// 1/2 masked mean of (x - stop(x - gradient))^2, computed in float64: a loss whose derivative is
/// gradient / (number of elements that count).
at::Tensor dmd_loss(const at::Tensor& generated, const at::Tensor& gradient,
                    const at::Tensor& mask = {});

/// [T] float32: 1 on the last `count` frames (all of them if count >= T or count <= 0).
at::Tensor last_frames(int64_t frames, int64_t count);

/// The same values; gradients pass only through the frames that the mask keeps.
at::Tensor keep_gradient(const at::Tensor& x, const at::Tensor& mask);

}  // namespace minwm::diffusion
