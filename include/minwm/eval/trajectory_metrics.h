#pragma once
// Metrics of the field between two camera paths, as other papers report them. Spec
// data-camera-eval 12.
//
// All paths are camera_to_world [N, 4, 4] of any floating dtype, one pose per frame, N >= 1; both
// paths have the same N. Functions throw Error otherwise. Translations are in world units.
//
//   const RelativeErrors field = relative_errors(truth, estimate);         // RotErr, TransErr,
//   CamMC const PathErrors ours = path_errors(truth, estimate, Alignment::kFirstFrame);

#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::eval {

/// RotErr, TransErr and CamMC on poses relative to the first frame; sums over frames (CameraCtrl,
/// CamI2V).
struct RelativeErrors {
  double rotation_radians = 0;       ///< RotErr: sum of angles. What most papers print
  double rotation_mean_degrees = 0;  ///< the same angles as a mean in degrees
  /// "Relative": each path is divided by its own largest distance from the start (+ 1e-9).
  double translation_relative = 0, cam_mc_relative = 0;
  /// "Absolute": both are divided by the ground truth's; the estimate must be in the truth's units.
  double translation_absolute = 0, cam_mc_absolute = 0;
  std::vector<double> rotation_per_frame;  ///< radians, N entries
};
RelativeErrors relative_errors(const at::Tensor& truth, const at::Tensor& estimate);

/// What is done to the estimated path before it is compared.
enum class Alignment {
  kNone,        ///< nothing
  kRigid,       ///< Umeyama's rotation and translation, "SE(3)"
  kSimilarity,  ///< and one scale, "Sim(3)". Too forgiving for camera following: hides a wrong path
  kScale,       ///< Umeyama's scale alone
  kFirstFrame,  ///< first poses made equal: for estimates in world units
  kFirstFrameScale,  ///< and one least-squares scale >= 0: for estimates without a unit
};

/// ATE and RPE (evo's definitions). NaN where the alignment is undefined: the centres of a path lie
/// on a line or a point, so that Umeyama has no unique rotation.
struct PathErrors {
  double translation_rmse = 0, translation_mean = 0;  ///< ATE: distance of camera centres
  double rotation_rmse_degrees = 0;                   ///< of absolute orientations
  /// RPE: error of the motion over `delta` frames, every start frame; NaN if N <= delta.
  double step_translation_rmse = 0, step_rotation_rmse_degrees = 0;
  double scale = 1;  ///< that the estimate was multiplied by
};
/// @param delta  frames between the two poses of a relative error, >= 1.
PathErrors path_errors(const at::Tensor& truth, const at::Tensor& estimate, Alignment alignment,
                       int64_t delta = 1);

/// Sum of <estimate, truth> over sum of <truth, truth> of the camera centres relative to the first
/// frame: 1 = the right amplitude, 0 = still, negative = the opposite way. NaN if the truth does
/// not move. Only for estimates in world units.
double translation_gain(const at::Tensor& truth, const at::Tensor& estimate);

}  // namespace minwm::eval
