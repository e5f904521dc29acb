#pragma once
// Queries, keys and values on their way into attention and out of it: rotary positions, camera
// matrices and the change to the layout that attention reads, in one pass.

#include <ATen/core/Tensor.h>

namespace minwm::nn {

/// x [B, N, A, D] → [B, N, A, D], or with `matrices` [B, N, 2 A, D]: first the heads rotated by
/// `rotary` (as they are where it is undefined), then every 4-vector times its frame's matrix from
/// the right. Same type as x; stored heads first, as attend() reads it.
/// @param rotary    [N, D / 2] complex64 (embedding.h) or undefined.
/// @param matrices  [B, T, 4, 4] float32, N / T tokens per frame, or undefined.
at::Tensor split_heads(const at::Tensor& x, const at::Tensor& rotary, const at::Tensor& matrices);

/// What attend() made of that, back to rows: [B, N, P A, D] → [B, N, P A D]; with `matrices` the
/// second half of the heads is multiplied by its frame's matrix first.
at::Tensor merge_heads(const at::Tensor& heads, const at::Tensor& matrices);

}  // namespace minwm::nn
