// Metrics between camera paths. Spec data-camera-eval 12, 16.

#include "camera_case.h"
#include "minwm/eval/trajectory_metrics.h"

namespace minwm::golden {
namespace {

/// The reference takes angles by arccos of the trace. Ours is the stable form (spec 12): exact at
/// 0, where arccos gives 1e-8 … 1e-7, and up to 5e-7 away for single small angles of float32 poses,
/// whose rounding arccos magnifies by 1 / sin. Sums agree within the case's tolerance.
constexpr double kZeroAngle = 1e-5, kAngleNoise = 1e-6;

at::Tensor row(const eval::PathErrors& errors) {
  return at::tensor({errors.translation_rmse, errors.translation_mean, errors.rotation_rmse_degrees,
                     errors.step_translation_rmse, errors.step_rotation_rmse_degrees},
                    at::kDouble);
}

/// A sum of angles in radians.
void compare_sum(Report& report, const std::string& name, const at::Tensor& ours,
                 const at::Tensor& reference) {
  if (reference.abs().max().item<double>() < kZeroAngle) {
    report.compare(name, ours, reference, 0, kAngleNoise);
  } else {
    report.compare(name, ours, reference);
  }
}

void replay_metrics(const Case& c, Report& report) {
  using eval::Alignment;
  for (const auto& item : c.config.at("pairs")) {
    const auto pair = item.get<std::string>();
    const std::string at = pair + "/";
    const at::Tensor truth = c.in(at + "gt_c2w"), estimate = c.in(at + "est_c2w");
    const auto field = eval::relative_errors(truth, estimate);
    const at::Tensor sums =
        at::tensor({field.rotation_radians, field.translation_relative, field.cam_mc_relative,
                    field.translation_absolute, field.cam_mc_absolute},
                   at::kDouble);
    const at::Tensor expected = c.out(at + "cami2v");
    compare_sum(report, at + "cami2v RotErr", sums.narrow(0, 0, 1), expected.narrow(0, 0, 1));
    report.compare(at + "cami2v", sums.slice(0, 1), expected.slice(0, 1));
    report.compare(at + "rot_err_per_frame_rad", at::tensor(field.rotation_per_frame, at::kDouble),
                   c.out(at + "rot_err_per_frame_rad"), c.rtol, kAngleNoise);

    std::vector<at::Tensor> rows;
    for (const auto alignment :
         {Alignment::kNone, Alignment::kRigid, Alignment::kSimilarity, Alignment::kScale}) {
      rows.push_back(row(eval::path_errors(truth, estimate, alignment)));
    }
    // NaN: the alignment is undefined and the reference tool refuses; spec: skip.
    const at::Tensor reference = c.out(at + "evo");
    const at::Tensor defined = reference.isnan().logical_not();
    const at::Tensor ours = at::where(defined, at::stack(rows), reference);
    report.compare(at + "evo", ours, reference);
  }
}

const bool registered = register_kind("camera.metrics", replay_metrics);

}  // namespace
}  // namespace minwm::golden
