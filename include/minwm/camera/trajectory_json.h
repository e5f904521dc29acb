#pragma once
// JSON trajectories: one entry per latent pose, in file order. Spec data-camera-eval 2.5.

#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

#include "minwm/camera/cameras.h"

namespace minwm::camera {

/// What a file holds, poses as stored (not aligned).
struct Trajectory {
  at::Tensor camera_to_world;  ///< [T, 4, 4] float64
  at::Tensor intrinsics;       ///< [T, 3, 3] float64, normalised
  std::string action_string;   ///< `_metadata.action_str` (frame_actions.h), "" if absent

  /// Aligned to the first frame, batch 1.
  Cameras cameras() const;
};

/// `{"0": {"extrinsic": 4x4 camera_to_world, "K": 3x3 in pixels}, ...}`; `_metadata` is skipped.
/// `source` names the text in errors.
/// @throws Error naming source, entry and field: not JSON, no pose, wrong shape, not rigid.
Trajectory parse_trajectory_json(const std::string& text, const std::string& source);
Trajectory read_trajectory_json(const std::filesystem::path& file);

/// The inverse of parse_trajectory_json, K in pixels of a width x height image.
std::string to_trajectory_json(const Trajectory& trajectory, double width, double height);

/// A clip of WorldPlay's training set.
struct TrainingTrajectory {
  at::Tensor world_to_camera;  ///< [T, 4, 4] float64, as stored
  at::Tensor intrinsics;       ///< [T, 3, 3] float64, normalised
  at::Tensor labels;           ///< [T] int64 (action_labels.h); undefined without an action file
};

/// Entries per video frame with `w2c` and `intrinsic`; latent k reads entry 4k. `action_text` (may
/// be empty) has the same keys with `move_action` (letters W S A D; opposite keys cancel) and
/// `view_action` (LR LL LU LD).
/// @throws Error as parse_trajectory_json, and if there are fewer than 4 (frames - 1) + 1 entries.
TrainingTrajectory parse_training_json(const std::string& pose_text, const std::string& action_text,
                                       int64_t frames, const std::string& source);

}  // namespace minwm::camera
