#pragma once
// Poses and intrinsics as files store them, and as the models take them. Spec data-camera-eval 4.

#include <ATen/core/Tensor.h>

#include "minwm/camera/cameras.h"

namespace minwm::camera {

/// The rigid inverse of every pose: camera_to_world <-> world_to_camera. [T, 4, 4] -> float64.
at::Tensor invert_poses(const at::Tensor& poses);

/// First frame = identity: world_to_camera_i * inv(world_to_camera_0). [T, 4, 4] -> float64.
at::Tensor align_to_first(const at::Tensor& world_to_camera);

/// [T, 4, 4] world_to_camera -> [T, 7] float32 `tx ty tz qx qy qz qw` (unit quaternion, either
/// sign).
at::Tensor to_poses7(const at::Tensor& world_to_camera);
/// [T, 7] -> [T, 4, 4] float64. @throws Error on another shape or a zero quaternion.
at::Tensor from_poses7(const at::Tensor& poses7);

/// The same 3x3 intrinsics for every frame: [frames, 3, 3] float64.
at::Tensor intrinsics_matrices(double fx, double fy, double cx, double cy, int64_t frames);

/// [T, 3, 3] in pixels of any image size -> normalised fx / (2 cx), fy / (2 cy), centre 0.5,
/// float64. @throws Error if a focal length or a centre is not positive.
at::Tensor normalize_intrinsics(const at::Tensor& pixels);

/// Normalised fx, fy after cutting the middle crop_width x crop_height out of width x height.
/// (Resizing changes nothing.) [T, 3, 3] -> [T, 3, 3]. @throws Error if the crop is larger.
at::Tensor crop_intrinsics(const at::Tensor& intrinsics, double width, double height,
                           double crop_width, double crop_height);

/// What the training loaders of both lines make of stored data: poses7 [T, 7] aligned to the first
/// frame and intrinsics [4] `fx fy cx cy` as given. Batch 1.
Cameras cameras_from_poses7(const at::Tensor& poses7, const at::Tensor& intrinsics4);

}  // namespace minwm::camera
