#pragma once
// Elementwise steps of a transformer block.

#include <ATen/core/Tensor.h>

namespace minwm::nn {

/// x + gate * y, one gate per frame: the gated residual. x [B, T, S, E] float32 (the residual
/// stream); y likewise of any compute type; gate [B, T, E] float32.
at::Tensor gated_add(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);

/// GELU in its tanh form.
at::Tensor gelu(const at::Tensor& x);

}  // namespace minwm::nn
