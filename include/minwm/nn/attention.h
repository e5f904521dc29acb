#pragma once
// The one attention path of training, generation and serving: plain softmax attention over
// rectangles.

#include <ATen/core/Tensor.h>

#include "minwm/nn/frame_plan.h"

namespace minwm::nn {

/// softmax(q k^T / sqrt(D)) v, unmasked. q [B, N, A, D]; k, v [B, M, A, D] → [B, N, A, D].
/// Differentiable.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// attend() for every chunk of a plan. q, k, v [B, frames * tokens_per_frame, A, D].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const FramePlan& plan, int64_t tokens_per_frame);

}  // namespace minwm::nn
