#pragma once
// RealEstate10K pose files, and the field's usual relative poses. Spec data-camera-eval 6.

#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

#include "minwm/camera/cameras.h"

namespace minwm::camera {

/// One clip: N video frames.
struct Re10kClip {
  std::string url;
  at::Tensor timestamps_us;    ///< [N] int64
  at::Tensor intrinsics;       ///< [N, 4] float64: fx, cx over width, fy, cy over height
  at::Tensor world_to_camera;  ///< [N, 4, 4] float64, OpenCV axes

  /// Aligned to the first frame; the first line's intrinsics for all, centre as given. Batch 1.
  Cameras cameras() const;
};

/// Line 1: the source URL; every other: 19 numbers `timestamp fx fy cx cy 0 0` and the 3x4
/// world_to_camera. CRLF, tabs, repeated blanks and blank lines at the end are accepted.
/// @throws Error naming source and line.
Re10kClip parse_re10k(const std::string& text, const std::string& source);
Re10kClip read_re10k(const std::filesystem::path& file);

/// Where relative_poses puts the first camera.
enum class FirstCamera {
  kOrigin,        ///< identity
  kKeepDistance,  ///< as far behind the origin (-y) as it was from the old one
};

/// camera_to_world relative to the first camera (CameraCtrl): D * w2c_0 * c2w_i.
/// world_to_camera [N, 4, 4] -> [N, 4, 4] float64.
at::Tensor relative_poses(const at::Tensor& world_to_camera, FirstCamera first);

/// Normalised fx, fy, cx, cy [N, 4] of a clip of aspect ratio `source_aspect` (width / height)
/// after it was resized to cover width x height and cut in the middle.
at::Tensor fit_intrinsics(const at::Tensor& intrinsics4, double source_aspect, int64_t width,
                          int64_t height);

/// Plücker rays through the pixel centres: channels `o x d` (3), `d` (3), d of unit length.
/// camera_to_world [N, 4, 4], normalised intrinsics4 [N, 4] -> [N, 6, height, width] float32.
at::Tensor pluecker_rays(const at::Tensor& camera_to_world, const at::Tensor& intrinsics4,
                         int64_t width, int64_t height);

}  // namespace minwm::camera
