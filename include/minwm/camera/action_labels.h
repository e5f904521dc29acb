#pragma once
// The 81 discrete motion classes of the HY line, from poses. Spec data-camera-eval 5.

#include <ATen/core/Tensor.h>

namespace minwm::camera {

inline constexpr double kTrainingMoveThreshold = 0.01;     ///< world units per latent frame
inline constexpr double kInferenceMoveThreshold = 0.0001;  ///< upstream's inference programs

/// label = 9 * translation + rotation; classes 0 none, 1 forward / yaw right, 2 back / yaw left,
/// 3 right / pitch up, 4 left / pitch down, 5 1+3, 6 1+4, 7 2+3, 8 2+4. Frame 0 has label 0.
///
/// @param world_to_camera  [T, 4, 4], any floating dtype.
/// @param move_threshold   shorter translations are "none".
/// @param third_person     translation counts only where yaw and pitch are below 0.05 degrees.
/// @return                 [T] int64 in 0 ... 80.
/// Golden kind camera.actions.from_poses.
at::Tensor action_labels(const at::Tensor& world_to_camera,
                         double move_threshold = kTrainingMoveThreshold, bool third_person = false);

/// The class of one axis pair: `along` +1 / -1 / 0 for forward-back (or yaw right-left), `across`
/// for right-left (or pitch up-down).
int64_t motion_class(int along, int across);

}  // namespace minwm::camera
