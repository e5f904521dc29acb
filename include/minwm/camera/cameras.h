#pragma once

#include <ATen/core/Tensor.h>

namespace minwm::camera {

/// The cameras of a clip or a batch, one per latent frame.
/// world_to_camera [B, T, 4, 4] float32, OpenCV axes (x right, y down, z forward), first frame =
/// identity. intrinsics      [B, T, 3, 3] float32, normalised: fx / width, fy / height, centre 0.5.
/// Both undefined = no camera. Always float32 (bf16 costs 3-7 % of a step; spec data-camera-eval
/// 4).
struct Cameras {
  at::Tensor world_to_camera;
  at::Tensor intrinsics;
  bool defined() const { return world_to_camera.defined(); }
  /// Frames [first, first + count).
  Cameras frames(int64_t first, int64_t count) const {
    return defined() ? Cameras{world_to_camera.narrow(1, first, count),
                               intrinsics.narrow(1, first, count)}
                     : *this;
  }
};

}  // namespace minwm::camera
