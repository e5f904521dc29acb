// Heads: rotary rotation, camera matrices and the change of layout in one pass.

#include "clones.h"
#include "kernels.h"

namespace minwm::nn::cpu {
namespace {

/// y = x · m for one 4-vector (x a row), or x · mᵀ.
template <bool kTransposed>
MINWM_INLINE void row_times_matrix(const float* x, const float* m, float* y) {
  for (int64_t c = 0; c < 4; ++c) {
    y[c] = kTransposed
               ? x[0] * m[4 * c] + x[1] * m[4 * c + 1] + x[2] * m[4 * c + 2] + x[3] * m[4 * c + 3]
               : x[0] * m[c] + x[1] * m[4 + c] + x[2] * m[8 + c] + x[3] * m[12 + c];
  }
}

template <bool kTransposed, class T>
MINWM_INLINE void head_times_matrix(const T* from, const float* m, T* to, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 4) {
    const float x[4] = {load(from + d), load(from + d + 1), load(from + d + 2), load(from + d + 3)};
    float y[4];
    row_times_matrix<kTransposed>(x, m, y);
    for (int64_t c = 0; c < 4; ++c) {
      store(to + d + c, y[c]);
    }
  }
}

template <class T>
MINWM_INLINE void rotate(const T* from, const float* rotary, T* to, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 2) {
    const float a = load(from + d), b = load(from + d + 1), c = rotary[d], s = rotary[d + 1];
    store(to + d, a * c - b * s);
    store(to + d + 1, a * s + b * c);
  }
}

template <class T>
MINWM_INLINE void copy(const T* from, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = from[i];
  }
}

/// Calls body(batch, token, matrix) for every token of frames [begin, end).
template <class Body>
MINWM_INLINE void for_each_token(const HeadShape& shape, const float* matrices, int64_t begin,
                                 int64_t end, const Body& body) {
  const int64_t frames = shape.tokens / shape.tokens_per_frame;
  for (int64_t frame = begin; frame < end; ++frame) {
    const int64_t batch = frame / frames, first = frame % frames * shape.tokens_per_frame;
    const float* matrix = shape.camera ? matrices + frame * 16 : nullptr;
    for (int64_t token = first; token < first + shape.tokens_per_frame; ++token) {
      body(batch, token, matrix);
    }
  }
}

template <class T>
MINWM_INLINE void split(const T* x, const float* rotary, const float* matrices, T* out,
                        const HeadShape& shape, int64_t begin, int64_t end) {
  const int64_t paths = shape.camera ? 2 : 1, d = shape.dim;
  for_each_token(shape, matrices, begin, end,
                 [&](int64_t batch, int64_t token, const float* matrix) {
                   const T* from = x + batch * shape.batch_stride + token * shape.token_stride;
                   T* to = out + (batch * paths * shape.heads * shape.tokens + token) * d;
                   for (int64_t head = 0; head < shape.heads; ++head) {
                     T* first = to + head * shape.tokens * d;
                     if (rotary != nullptr) {
                       rotate(from + head * d, rotary + token * d, first, d);
                     } else {
                       copy(from + head * d, first, d);
                     }
                     if (shape.camera) {
                       head_times_matrix<false>(from + head * d, matrix,
                                                first + shape.heads * shape.tokens * d, d);
                     }
                   }
                 });
}

template <class T>
MINWM_INLINE void split_backward(const T* dout, const float* rotary, const float* matrices, T* dx,
                                 const HeadShape& shape, int64_t begin, int64_t end) {
  const int64_t paths = shape.camera ? 2 : 1, d = shape.dim;
  for_each_token(shape, matrices, begin, end,
                 [&](int64_t batch, int64_t token, const float* matrix) {
                   T* to = dx + batch * shape.batch_stride + token * shape.token_stride;
                   const T* from = dout + (batch * paths * shape.heads * shape.tokens + token) * d;
                   for (int64_t head = 0; head < shape.heads; ++head) {
                     const T* first = from + head * shape.tokens * d;
                     const T* second = first + shape.heads * shape.tokens * d;
                     for (int64_t i = 0; i < d; i += 4) {
                       float y[4] = {load(first + i), load(first + i + 1), load(first + i + 2),
                                     load(first + i + 3)};
                       if (rotary != nullptr) {
                         const float* r = rotary + token * d + i;
                         const float a = y[0], b = y[1], e = y[2], f = y[3];
                         y[0] = a * r[0] + b * r[1];
                         y[1] = b * r[0] - a * r[1];
                         y[2] = e * r[2] + f * r[3];
                         y[3] = f * r[2] - e * r[3];
                       }
                       if (shape.camera) {
                         const float g[4] = {load(second + i), load(second + i + 1),
                                             load(second + i + 2), load(second + i + 3)};
                         float back[4];
                         row_times_matrix<true>(g, matrix, back);
                         for (int64_t c = 0; c < 4; ++c) {
                           y[c] += back[c];
                         }
                       }
                       for (int64_t c = 0; c < 4; ++c) {
                         store(to + head * d + i + c, y[c]);
                       }
                     }
                   }
                 });
}

template <class T>
MINWM_INLINE void merge(T* heads, const float* matrices, T* merged, const HeadShape& shape,
                        bool back, int64_t begin, int64_t end) {
  const int64_t all = (shape.camera ? 2 : 1) * shape.heads, d = shape.dim;
  for_each_token(shape, matrices, begin, end,
                 [&](int64_t batch, int64_t token, const float* matrix) {
                   T* inside = merged + (batch * shape.tokens + token) * all * d;
                   T* outside = heads + (batch * all * shape.tokens + token) * d;
                   for (int64_t head = 0; head < all; ++head) {
                     T* a = outside + head * shape.tokens * d;
                     T* b = inside + head * d;
                     const bool transformed = head >= shape.heads;
                     if (transformed && back) {
                       head_times_matrix<true>(b, matrix, a, d);
                     } else if (transformed) {
                       head_times_matrix<false>(a, matrix, b, d);
                     } else if (back) {
                       copy(b, a, d);
                     } else {
                       copy(a, b, d);
                     }
                   }
                 });
}

}  // namespace

#define DEFINE(T)                                                                                \
  MINWM_CLONES void split_heads(const T* x, const float* rotary, const float* matrices, T* out,  \
                                const HeadShape& shape, int64_t begin, int64_t end) {            \
    split(x, rotary, matrices, out, shape, begin, end);                                          \
  }                                                                                              \
  MINWM_CLONES void split_heads_backward(const T* dout, const float* rotary,                     \
                                         const float* matrices, T* dx, const HeadShape& shape,   \
                                         int64_t begin, int64_t end) {                           \
    split_backward(dout, rotary, matrices, dx, shape, begin, end);                               \
  }                                                                                              \
  MINWM_CLONES void merge_heads(T* heads, const float* matrices, T* merged,                      \
                                const HeadShape& shape, bool back, int64_t begin, int64_t end) { \
    merge(heads, matrices, merged, shape, back, begin, end);                                     \
  }

DEFINE(float)
DEFINE(Bf16)

}  // namespace minwm::nn::cpu
