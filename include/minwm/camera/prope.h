#pragma once
// PRoPE: cameras as 4x4 projective matrices that act on 4-vectors of queries, keys and values (spec
// wan-dit 4).

#include <ATen/core/Tensor.h>

#include "minwm/camera/cameras.h"

namespace minwm::camera {

/// P = K~ V (image from world) and P^-1, per frame. K~ = diag(fx, fy, 1, 1): the principal point is
/// ignored.
struct ProjectiveMatrices {
  at::Tensor p;          ///< [B, T, 4, 4] float32
  at::Tensor p_inverse;  ///< [B, T, 4, 4] float32; V^-1 is the rigid inverse
};

/// Built in float64, returned in float32. Without intrinsics P = V.
/// @throws Error on wrong shapes.
ProjectiveMatrices projective_matrices(const Cameras& cameras);

}  // namespace minwm::camera
