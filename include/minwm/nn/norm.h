#pragma once

#include <torch/torch.h>

namespace minwm::nn {

/// x * rsqrt(mean(x²) + eps) * weight over the last axis: statistics in float32, rounded to x's
/// type, then multiplied by the weight (the reference's order).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// RMS norm over the whole width, parameter `weight` [width] initialised to 1.
class RmsNormImpl : public torch::nn::Module {
 public:
  RmsNormImpl(int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x) const { return rms_norm(x, weight_, eps_); }

 private:
  double eps_;
  at::Tensor weight_;
};
TORCH_MODULE(RmsNorm);

/// LayerNorm without parameters over the last axis.
at::Tensor layer_norm(const at::Tensor& x, double eps);

/// LN(x) * (1 + scale) + shift, one scale and shift per frame. x [B, T, S, E] float32; shift, scale
/// [B, T, E] float32 → [B, T, S, E] of type `out`.
at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps, at::ScalarType out);

}  // namespace minwm::nn
