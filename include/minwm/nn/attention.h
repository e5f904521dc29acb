#pragma once
// The one attention path of training, generation and serving: plain softmax attention over
// rectangles.

#include <ATen/core/Tensor.h>

#include "minwm/nn/frame_plan.h"
#include "minwm/nn/frame_rows.h"

namespace minwm::nn {

/// softmax(q k^T / sqrt(D)) v, unmasked. q [B, N, A, D]; k, v [B, M, A, D] → [B, N, A, D].
/// Differentiable.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// attend() for every chunk of a plan. k, v [B, rows of all frames, A, D]; q holds the last of
/// these frames (all of them, or what queries_from left, or the frames that follow a cache).
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const FramePlan& plan, const FrameRows& rows);

}  // namespace minwm::nn
