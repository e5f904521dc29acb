#pragma once
// Camera paths from pose strings ("w*8, l*3"; dash form "w-8"; compound "w+l*4"). Spec
// data-camera-eval 2.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/camera/cameras.h"

namespace minwm::camera {

inline constexpr double kStep = 0.08;                         ///< world units per latent frame
inline constexpr double kRotationStep = 0.05235987755982988;  ///< 3 degrees in radians

/// One latent frame's motion in the camera's own frame.
struct Motion {
  double forward = 0, right = 0, up = 0;  ///< world units
  double yaw = 0, pitch = 0,
         third_person_yaw = 0;  ///< radians; yaw > 0 turns right, pitch > 0 tilts up
};

/// Parses the superset grammar of spec 2.7: pieces split at `,`, `;` or newline; `keys SEP count`,
/// SEP one of
/// `* - :`; keys joined by `+`; w s a d (translate), u dn (up, down), j l (yaw left, right), i k
/// (pitch up, down), up down left right (rotation), `.` n none (still). One Motion per latent step.
/// @throws Error naming the piece, its position and the allowed keys.
std::vector<Motion> parse_pose_string(const std::string& text);

/// The canonical star form, e.g. "w*8,l*3".
std::string to_pose_string(const std::vector<Motion>& motions);

/// Applies motions from the identity: n motions give n + 1 camera_to_world poses.
/// @return [n + 1, 4, 4] float64.
at::Tensor integrate(const std::vector<Motion>& motions);

/// Appends one motion to a camera_to_world pose ([4, 4] float64).
at::Tensor step_pose(const at::Tensor& camera_to_world, const Motion& motion);

/// camera_to_world [T, 4, 4] float64 → Cameras with batch 1, first frame = identity, cut or padded
/// (last pose repeated) to `frames` if frames > 0, and the given normalised focal lengths.
Cameras make_cameras(const at::Tensor& camera_to_world, double fx, double fy, int64_t frames = 0);

inline constexpr double kDefaultFx = 0.50505050505050508;  ///< 969.697 / 1920
inline constexpr double kDefaultFy = 0.89786756453423121;  ///< 969.697 / 1080
/// Focal length over height for square pixels at width x height with the default fx.
inline double square_pixel_fy(int64_t width, int64_t height) {
  return kDefaultFx * static_cast<double>(width) / static_cast<double>(height);
}

}  // namespace minwm::camera
