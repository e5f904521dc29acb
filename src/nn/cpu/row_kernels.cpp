// Norms, gates, GELU and softmax over rows.

#include "clones.h"
#include "kernels.h"

namespace minwm::nn::cpu {
namespace {

template <class T>
MINWM_INLINE void rms_norm_rows(const T* x, int64_t x_stride, const float* weight, T* y,
                                float* inverse, int64_t begin, int64_t end, int64_t width,
                                float eps) {
  for (int64_t row = begin; row < end; ++row) {
    const T* from = x + row * x_stride;
    T* to = y + row * width;
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) {
      sum += load(from + i) * load(from + i);
    }
    const float factor = 1.0F / std::sqrt(sum / static_cast<float>(width) + eps);
    inverse[row] = factor;
    for (int64_t i = 0; i < width; ++i) {
      store(to + i, rounded(from, load(from + i) * factor) * rounded(from, weight[i]));
    }
  }
}

template <class T>
MINWM_INLINE void rms_norm_rows_backward(const T* dy, const T* x, int64_t x_stride,
                                         const float* weight, const float* inverse, T* dx,
                                         float* dweight, int64_t begin, int64_t end,
                                         int64_t width) {
  for (int64_t row = begin; row < end; ++row) {
    const T* from = x + row * x_stride;
    const T* grad = dy + row * width;
    T* to = dx + row * width;
    const float factor = inverse[row];
    float dot = 0;
    for (int64_t i = 0; i < width; ++i) {
      const float normed = load(from + i) * factor, g = load(grad + i);
      dweight[i] += g * normed;
      dot += g * weight[i] * normed;
    }
    dot /= static_cast<float>(width);
    for (int64_t i = 0; i < width; ++i) {
      store(to + i, factor * (load(grad + i) * weight[i] - load(from + i) * factor * dot));
    }
  }
}

template <class T>
MINWM_INLINE void modulated_norm_groups(const float* x, const float* shift, const float* scale,
                                        T* y, float* mean, float* inverse, int64_t begin,
                                        int64_t end, int64_t rows, int64_t width, float eps) {
  for (int64_t row = begin * rows; row < end * rows; ++row) {
    const float* from = x + row * width;
    const float *group_shift = shift + row / rows * width,
                *group_scale = scale + row / rows * width;
    T* to = y + row * width;
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) {
      sum += from[i];
    }
    const float centre = sum / static_cast<float>(width);
    float square = 0;
    for (int64_t i = 0; i < width; ++i) {
      square += (from[i] - centre) * (from[i] - centre);
    }
    const float factor = 1.0F / std::sqrt(square / static_cast<float>(width) + eps);
    mean[row] = centre;
    inverse[row] = factor;
    for (int64_t i = 0; i < width; ++i) {
      store(to + i, (from[i] - centre) * factor * (1.0F + group_scale[i]) + group_shift[i]);
    }
  }
}

template <class T>
MINWM_INLINE void modulated_norm_groups_backward(const T* dy, const float* x, const float* scale,
                                                 const float* mean, const float* inverse, float* dx,
                                                 float* dshift, float* dscale, int64_t begin,
                                                 int64_t end, int64_t rows, int64_t width) {
  for (int64_t group = begin; group < end; ++group) {
    float *shift_sum = dshift + group * width, *scale_sum = dscale + group * width;
    const float* group_scale = scale + group * width;
    for (int64_t i = 0; i < width; ++i) {
      shift_sum[i] = scale_sum[i] = 0;
    }
    for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
      const float* from = x + row * width;
      const T* grad = dy + row * width;
      float* to = dx + row * width;
      const float centre = mean[row], factor = inverse[row];
      float sum = 0, dot = 0;
      for (int64_t i = 0; i < width; ++i) {
        const float g = load(grad + i), normed = (from[i] - centre) * factor,
                    scaled = g * (1.0F + group_scale[i]);
        shift_sum[i] += g;
        scale_sum[i] += g * normed;
        sum += scaled;
        dot += scaled * normed;
      }
      sum /= static_cast<float>(width);
      dot /= static_cast<float>(width);
      for (int64_t i = 0; i < width; ++i) {
        const float normed = (from[i] - centre) * factor;
        to[i] = factor * (load(grad + i) * (1.0F + group_scale[i]) - sum - normed * dot);
      }
    }
  }
}

template <class T>
MINWM_INLINE void gated_add_groups(const float* x, const T* y, const float* gate, float* out,
                                   int64_t begin, int64_t end, int64_t rows, int64_t width) {
  for (int64_t row = begin * rows; row < end * rows; ++row) {
    const float* group_gate = gate + row / rows * width;
    for (int64_t i = 0; i < width; ++i) {
      out[row * width + i] = x[row * width + i] + load(y + row * width + i) * group_gate[i];
    }
  }
}

template <class T>
MINWM_INLINE void gated_add_groups_backward(const float* dout, const T* y, const float* gate, T* dy,
                                            float* dgate, int64_t begin, int64_t end, int64_t rows,
                                            int64_t width) {
  for (int64_t group = begin; group < end; ++group) {
    const float* group_gate = gate + group * width;
    float* sum = dgate + group * width;
    for (int64_t i = 0; i < width; ++i) {
      sum[i] = 0;
    }
    for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const float g = dout[row * width + i];
        sum[i] += g * load(y + row * width + i);
        store(dy + row * width + i, g * group_gate[i]);
      }
    }
  }
}

constexpr float kGeluSlope = 1.5957691216F;  // 2 sqrt(2 / pi): tanh(u) = 2 sigmoid(2 u) - 1
constexpr float kGeluCubic = 0.044715F;

template <class T>
MINWM_INLINE void gelu_range(const T* x, T* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float v = load(x + i);
    store(y + i, v / (1.0F + exp_of(-kGeluSlope * v * (1.0F + kGeluCubic * v * v))));
  }
}

template <class T>
MINWM_INLINE void gelu_range_backward(const T* dy, const T* x, T* dx, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float v = load(x + i);
    const float s = 1.0F / (1.0F + exp_of(-kGeluSlope * v * (1.0F + kGeluCubic * v * v)));
    const float slope = kGeluSlope * (1.0F + 3.0F * kGeluCubic * v * v);
    store(dx + i, load(dy + i) * (s + v * s * (1.0F - s) * slope));
  }
}

template <class T>
MINWM_INLINE void softmax_rows(T* s, float scale, int64_t begin, int64_t end, int64_t width) {
  float kept[kSoftmaxWidth];
  for (int64_t row = begin; row < end; ++row) {
    T* p = s + row * width;
    float top = load(p);
    for (int64_t i = 1; i < width; ++i) {
      const float v = load(p + i);
      top = v > top ? v : top;
    }
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) {
      kept[i] = exp_of((load(p + i) - top) * scale);
      sum += kept[i];
    }
    const float factor = 1.0F / sum;
    for (int64_t i = 0; i < width; ++i) {
      store(p + i, kept[i] * factor);
    }
  }
}

template <class T>
MINWM_INLINE void softmax_rows_backward(const T* p, T* dp, float scale, int64_t begin, int64_t end,
                                        int64_t width) {
  for (int64_t row = begin; row < end; ++row) {
    const T* weight = p + row * width;
    T* grad = dp + row * width;
    float dot = 0;
    for (int64_t i = 0; i < width; ++i) {
      dot += load(weight + i) * load(grad + i);
    }
    for (int64_t i = 0; i < width; ++i) {
      store(grad + i, scale * load(weight + i) * (load(grad + i) - dot));
    }
  }
}

}  // namespace

#define MINWM_BOTH_TYPES(DEFINE) DEFINE(float) DEFINE(Bf16)

#define DEFINE(T)                                                                                  \
  MINWM_CLONES void rms_norm(const T* x, int64_t x_stride, const float* weight, T* y,              \
                             float* inverse, int64_t begin, int64_t end, int64_t width,            \
                             float eps) {                                                          \
    rms_norm_rows(x, x_stride, weight, y, inverse, begin, end, width, eps);                        \
  }                                                                                                \
  MINWM_CLONES void rms_norm_backward(const T* dy, const T* x, int64_t x_stride,                   \
                                      const float* weight, const float* inverse, T* dx,            \
                                      float* dweight, int64_t begin, int64_t end, int64_t width) { \
    rms_norm_rows_backward(dy, x, x_stride, weight, inverse, dx, dweight, begin, end, width);      \
  }                                                                                                \
  MINWM_CLONES void modulated_norm(const float* x, const float* shift, const float* scale, T* y,   \
                                   float* mean, float* inverse, int64_t begin, int64_t end,        \
                                   int64_t rows, int64_t width, float eps) {                       \
    modulated_norm_groups(x, shift, scale, y, mean, inverse, begin, end, rows, width, eps);        \
  }                                                                                                \
  MINWM_CLONES void modulated_norm_backward(const T* dy, const float* x, const float* scale,       \
                                            const float* mean, const float* inverse, float* dx,    \
                                            float* dshift, float* dscale, int64_t begin,           \
                                            int64_t end, int64_t rows, int64_t width) {            \
    modulated_norm_groups_backward(dy, x, scale, mean, inverse, dx, dshift, dscale, begin, end,    \
                                   rows, width);                                                   \
  }                                                                                                \
  MINWM_CLONES void gated_add(const float* x, const T* y, const float* gate, float* out,           \
                              int64_t begin, int64_t end, int64_t rows, int64_t width) {           \
    gated_add_groups(x, y, gate, out, begin, end, rows, width);                                    \
  }                                                                                                \
  MINWM_CLONES void gated_add_backward(const float* dout, const T* y, const float* gate, T* dy,    \
                                       float* dgate, int64_t begin, int64_t end, int64_t rows,     \
                                       int64_t width) {                                            \
    gated_add_groups_backward(dout, y, gate, dy, dgate, begin, end, rows, width);                  \
  }                                                                                                \
  MINWM_CLONES void gelu(const T* x, T* y, int64_t begin, int64_t end) {                           \
    gelu_range(x, y, begin, end);                                                                  \
  }                                                                                                \
  MINWM_CLONES void gelu_backward(const T* dy, const T* x, T* dx, int64_t begin, int64_t end) {    \
    gelu_range_backward(dy, x, dx, begin, end);                                                    \
  }                                                                                                \
  MINWM_CLONES void softmax(T* s, float scale, int64_t begin, int64_t end, int64_t width) {        \
    softmax_rows(s, scale, begin, end, width);                                                     \
  }                                                                                                \
  MINWM_CLONES void softmax_backward(const T* p, T* dp, float scale, int64_t begin, int64_t end,   \
                                     int64_t width) {                                              \
    softmax_rows_backward(p, dp, scale, begin, end, width);                                        \
  }

MINWM_BOTH_TYPES(DEFINE)

}  // namespace minwm::nn::cpu
