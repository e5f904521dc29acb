#pragma once
// Attention over some of a row's keys at a time, where the keys are never all in one place. Parts
// of one row are merged exactly by the logs of their normalisers; gradients of a part need only
// what all of them make together. Values, no autograd graph. Source: parallel.md section 4.3.

#include <ATen/core/Tensor.h>

namespace minwm::nn {

/// What queries make of some keys; heads first.
struct AttentionPart {
  at::Tensor out;      ///< [B, A, N, D], normalised over these keys
  at::Tensor log_sum;  ///< [B, A, N] float32, log of the sum of exp(q k / sqrt(D)) over these keys
};

/// q [B, A, N, D]; k, v [B, A, M, D] with M > 0, N > 0; float32 or bfloat16 (fp16 on CUDA).
AttentionPart attend_part(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// Makes `sum` (float32; undefined = no keys so far) hold the keys of `part` too.
void merge_part(AttentionPart& sum, const AttentionPart& part);

struct PartGradients {
  at::Tensor q, k, v;
};
/// This part's share of the gradients.
/// @param dout, whole  gradient and result of all parts together, `whole.out` of q's type.
PartGradients attend_part_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, const AttentionPart& whole);

}  // namespace minwm::nn
