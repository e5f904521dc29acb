#pragma once

#include <string>

#include <c10/core/Device.h>

namespace minwm {

/// "cpu" or "cuda" → a device; for CUDA opens libtorch_cuda first and picks GPU `local_rank`.
/// @throws Error if CUDA was asked for and is not there. Call once, before any tensor is made.
c10::Device open_device(const std::string& name, int local_rank = 0);

/// True where bfloat16 products run in hardware at more than float32's speed: any GPU, a CPU with
/// AVX512-BF16 or AMX.
bool has_native_bfloat16(const c10::Device& device);

}  // namespace minwm
