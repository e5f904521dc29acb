#pragma once

#include <torch/torch.h>

namespace minwm::nn {

/// x * rsqrt(mean(x²) + eps) * weight over the last axis: statistics in float32, rounded to x's type, then
/// multiplied by the weight (the reference's order).
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

}  // namespace minwm::nn
