#pragma once
// From tensors to the kernels' pointers.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kernels.h"

namespace minwm::nn::cpu {

/// True where the fused kernels apply; elsewhere (CUDA, float64) the same formula runs as composite
/// operators.
inline bool fused(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

template <class T>
T* data(const at::Tensor& x) {
  return reinterpret_cast<T*>(x.mutable_data_ptr());
}

/// Calls body with a null pointer of the element type.
template <class Body>
void with_type(at::ScalarType type, const Body& body) {
  if (type == at::kFloat) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<Bf16*>(nullptr));
  }
}

/// Splits [0, count) over threads, pieces of at least about 16 thousand elements.
template <class Body>
void parallel(int64_t count, int64_t elements_each, const Body& body) {
  constexpr int64_t kElements = 1 << 14;
  at::parallel_for(0, count, std::max<int64_t>(1, kElements / std::max<int64_t>(1, elements_each)),
                   body);
}

}  // namespace minwm::nn::cpu
