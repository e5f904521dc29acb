#pragma once
// Fused passes over rows for the CPU: what the composite operators would do in five to ten passes
// over memory. Raw pointers; bfloat16 as its bits. Every function works on a range, so that callers
// split it over threads; sums over rows never cross a range, so results do not depend on the number
// of threads.

#include <cstdint>

namespace minwm::nn::cpu {

using Bf16 = uint16_t;

/// y = round(x * rsqrt(mean(x²) + eps)) * weight per row of `width`; keeps the factors in `inverse`
/// [rows].
void rms_norm(const float* x, int64_t x_stride, const float* weight, float* y, float* inverse,
              int64_t begin, int64_t end, int64_t width, float eps);
void rms_norm(const Bf16* x, int64_t x_stride, const float* weight, Bf16* y, float* inverse,
              int64_t begin, int64_t end, int64_t width, float eps);
/// dx, and the rows' share of dweight (added).
void rms_norm_backward(const float* dy, const float* x, int64_t x_stride, const float* weight,
                       const float* inverse, float* dx, float* dweight, int64_t begin, int64_t end,
                       int64_t width);
void rms_norm_backward(const Bf16* dy, const Bf16* x, int64_t x_stride, const float* weight,
                       const float* inverse, Bf16* dx, float* dweight, int64_t begin, int64_t end,
                       int64_t width);

/// y = (x - mean) * inverse * (1 + scale) + shift for groups [begin, end) of `rows` rows; shift and
/// scale per group.
void modulated_norm(const float* x, const float* shift, const float* scale, float* y, float* mean,
                    float* inverse, int64_t begin, int64_t end, int64_t rows, int64_t width,
                    float eps);
void modulated_norm(const float* x, const float* shift, const float* scale, Bf16* y, float* mean,
                    float* inverse, int64_t begin, int64_t end, int64_t rows, int64_t width,
                    float eps);
void modulated_norm_backward(const float* dy, const float* x, const float* scale, const float* mean,
                             const float* inverse, float* dx, float* dshift, float* dscale,
                             int64_t begin, int64_t end, int64_t rows, int64_t width);
void modulated_norm_backward(const Bf16* dy, const float* x, const float* scale, const float* mean,
                             const float* inverse, float* dx, float* dshift, float* dscale,
                             int64_t begin, int64_t end, int64_t rows, int64_t width);

/// out = x + gate * y; gate per group of `rows` rows.
void gated_add(const float* x, const float* y, const float* gate, float* out, int64_t begin,
               int64_t end, int64_t rows, int64_t width);
void gated_add(const float* x, const Bf16* y, const float* gate, float* out, int64_t begin,
               int64_t end, int64_t rows, int64_t width);
/// dy = dout * gate; dgate = sum of dout * y over a group's rows.
void gated_add_backward(const float* dout, const float* y, const float* gate, float* dy,
                        float* dgate, int64_t begin, int64_t end, int64_t rows, int64_t width);
void gated_add_backward(const float* dout, const Bf16* y, const float* gate, Bf16* dy, float* dgate,
                        int64_t begin, int64_t end, int64_t rows, int64_t width);

/// GELU in its tanh form, [begin, end) of the elements.
void gelu(const float* x, float* y, int64_t begin, int64_t end);
void gelu(const Bf16* x, Bf16* y, int64_t begin, int64_t end);
void gelu_backward(const float* dy, const float* x, float* dx, int64_t begin, int64_t end);
void gelu_backward(const Bf16* dy, const Bf16* x, Bf16* dx, int64_t begin, int64_t end);

inline constexpr int64_t kSoftmaxWidth = 1024;
/// In place: softmax(scale * s) per row of at most kSoftmaxWidth.
void softmax(float* s, float scale, int64_t begin, int64_t end, int64_t width);
void softmax(Bf16* s, float scale, int64_t begin, int64_t end, int64_t width);
/// In place over dp: scale * p * (dp - sum(p dp)).
void softmax_backward(const float* p, float* dp, float scale, int64_t begin, int64_t end,
                      int64_t width);
void softmax_backward(const Bf16* p, Bf16* dp, float scale, int64_t begin, int64_t end,
                      int64_t width);

/// One layout for the head transforms: tokens outside ([B, N, A, D] with any batch and token
/// stride) and heads outside ([B, P A, N, D] contiguous, P paths).
struct HeadShape {
  int64_t tokens, heads, dim;          ///< N, A, D
  int64_t batch_stride, token_stride;  ///< of the tokens-outside tensor, elements
  int64_t tokens_per_frame;
  bool camera;  ///< a second path: every 4-vector times the frame's matrix
};
/// Tokens outside → heads outside, frames [begin, end) of all B * T. First path: rotated by
/// `rotary` [N, D / 2] (cos, sin) or, where it is null, copied; second path (camera): times
/// `matrices` [B, T, 4, 4].
void split_heads(const float* x, const float* rotary, const float* matrices, float* out,
                 const HeadShape& shape, int64_t begin, int64_t end);
void split_heads(const Bf16* x, const float* rotary, const float* matrices, Bf16* out,
                 const HeadShape& shape, int64_t begin, int64_t end);
/// Its transpose: heads outside → tokens outside, the paths added up.
void split_heads_backward(const float* dout, const float* rotary, const float* matrices, float* dx,
                          const HeadShape& shape, int64_t begin, int64_t end);
void split_heads_backward(const Bf16* dout, const float* rotary, const float* matrices, Bf16* dx,
                          const HeadShape& shape, int64_t begin, int64_t end);
/// Heads outside [B, P A, N, D] → [B, N, P A D]; the second path times the frame's matrix. `back`
/// swaps source and target and transposes the matrices.
void merge_heads(float* heads, const float* matrices, float* merged, const HeadShape& shape,
                 bool back, int64_t begin, int64_t end);
void merge_heads(Bf16* heads, const float* matrices, Bf16* merged, const HeadShape& shape,
                 bool back, int64_t begin, int64_t end);

}  // namespace minwm::nn::cpu
