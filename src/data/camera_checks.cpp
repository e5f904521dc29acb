#include "camera_checks.h"

#include <cmath>

#include <ATen/ATen.h>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/data/manifest.h"

namespace minwm::data {
namespace {

constexpr double kRotationTolerance = 1e-4;
constexpr double kIdentityTolerance = 1e-5;

void require_valid_intrinsics(const at::Tensor& intrinsics, const std::string& where) {
  require(intrinsics.defined() && intrinsics.sizes() == at::IntArrayRef({3, 3}),
          "{}: intrinsics must be [3, 3]", where);
  const at::Tensor k = intrinsics.to(at::kDouble).contiguous();
  const double* const values = k.const_data_ptr<double>();
  for (int64_t i = 0; i < 9; ++i) {
    require(std::isfinite(values[i]), "{}: intrinsics are not finite", where);
  }
  const double fx = values[0];
  const double fy = values[4];
  require(fx > 0.1 && fx < 5 && fy > 0.1 && fy < 5,
          "{}: focal lengths fx {:.4g}, fy {:.4g} of image width and height, expected 0.1 … 5",
          where, fx, fy);
}

}  // namespace

void require_valid_cameras(const at::Tensor& world_to_camera, const at::Tensor& intrinsics,
                           const std::string& where) {
  require(world_to_camera.defined() && world_to_camera.dim() == 3 && world_to_camera.size(0) > 0 &&
              world_to_camera.size(1) == 4 && world_to_camera.size(2) == 4,
          "{}: world_to_camera must be [T, 4, 4]", where);
  camera::require_rigid(world_to_camera, (where + ": world_to_camera").c_str(), kRotationTolerance);
  const double off =
      (world_to_camera[0].to(at::kDouble) - at::eye(4, at::kDouble)).abs().max().item<double>();
  require(off < kIdentityTolerance, "{}: the first camera differs from the identity by {:.3g}",
          where, off);
  const auto cameras = camera::to_rigid(world_to_camera);
  for (size_t t = 1; t < cameras.size(); ++t) {
    const camera::Rigid step = cameras[t] * camera::inverse(cameras[t - 1]);
    const auto& v = step.translation;
    const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    const double turn = step.angle() * 180 / M_PI;
    require(
        length < kLongestStep && turn < kLargestTurn,
        "{}: the camera of latent frame {} moves {:.3g} units and turns {:.3g} degrees at once, "
        "expected less than {} and {}",
        where, t, length, turn, kLongestStep, kLargestTurn);
  }
  require_valid_intrinsics(intrinsics, where);
}

}  // namespace minwm::data
