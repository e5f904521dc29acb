#pragma once
// The camera path a video really shows, in world units: corners of a render with known depth are
// followed into the video, and the pose that explains their displacement is solved for. Spec
// data-camera-eval 14.2.

#include <vector>

#include "minwm/eval/commanded.h"

namespace minwm::eval {

struct RecoveredPath {
  at::Tensor camera_to_world;  ///< [T, 4, 4] float64; given frames as commanded, rejected frames as
                               ///< the one before
  std::vector<bool> accepted;  ///< [T]; true where enough corners agreed
};

/// @param frames  uint8 [T, H, W, 3], one per latent frame.
RecoveredPath recover_path(const Commanded& clip, const at::Tensor& frames);

/// Sums over judged frames, so that rows of many clips can be pooled.
struct PathAgreement {
  double rotation_error = 0;     ///< degrees, mean
  double translation_error = 0;  ///< world units, mean
  double ok_share = 0;           ///< accepted frames
  /// Gain = dot / norm: sums of <recovered, commanded> and <commanded, commanded> relative to the
  /// last given pose.
  double translation_dot = 0, translation_norm = 0, rotation_dot = 0, rotation_norm = 0;
};

PathAgreement compare_paths(const Commanded& clip, const RecoveredPath& path);

}  // namespace minwm::eval
