#pragma once
// What the cameras of a clip must satisfy, wherever they are written or read (spec
// data-camera-eval 10.7).

#include <string>

#include <ATen/core/Tensor.h>

namespace minwm::data {

/// world_to_camera [T, 4, 4], intrinsics [3, 3], any floating dtype: finite, rotations orthonormal
/// within 1e-4, the first pose = identity, steps below kLongestStep and kLargestTurn (manifest.h),
/// 0.1 < fx, fy < 5. @throws Error "WHERE: …" naming the frame and the value seen.
void require_valid_cameras(const at::Tensor& world_to_camera, const at::Tensor& intrinsics,
                           const std::string& where);

}  // namespace minwm::data
