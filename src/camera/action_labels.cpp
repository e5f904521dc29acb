#include "minwm/camera/action_labels.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "minwm/camera/rigid.h"

namespace minwm::camera {
namespace {

constexpr double kDegrees = 57.29577951308232;
constexpr double kTurnThreshold = 0.05;  ///< degrees per latent frame

int sign_above(double value, double threshold) {
  return value > threshold ? 1 : value < -threshold ? -1 : 0;
}

/// +1 within 60 degrees of the axis, -1 beyond 120.
int side(double cosine) {
  const double angle = std::acos(std::clamp(cosine, -1., 1.)) * kDegrees;
  return angle < 60 ? 1 : angle > 120 ? -1 : 0;
}

int64_t label(const Rigid& motion, double move_threshold, bool third_person) {
  const auto& m = motion.rotation;
  const double pitch = std::atan2(m[7], m[8]) * kDegrees;
  const double yaw = -std::asin(std::clamp(m[6], -1., 1.)) * kDegrees;
  const int64_t rotation =
      motion_class(sign_above(yaw, kTurnThreshold), sign_above(pitch, kTurnThreshold));
  const Vector3& v = motion.translation;
  const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  const bool turning = std::abs(pitch) >= kTurnThreshold || std::abs(yaw) >= kTurnThreshold;
  int64_t translation = 0;
  if (length > move_threshold && !(third_person && turning)) {
    translation = motion_class(side(v[2] / length), side(v[0] / length));
  }
  return 9 * translation + rotation;
}

}  // namespace

int64_t motion_class(int along, int across) {
  constexpr int64_t kClasses[3][3] = {{8, 2, 7}, {4, 0, 3}, {6, 1, 5}};
  return kClasses[along + 1][across + 1];
}

at::Tensor action_labels(const at::Tensor& world_to_camera, double move_threshold,
                         bool third_person) {
  const std::vector<Rigid> views = to_rigid(world_to_camera);
  at::Tensor labels = at::zeros({static_cast<int64_t>(views.size())}, at::kLong);
  int64_t* out = labels.mutable_data_ptr<int64_t>();
  for (size_t i = 1; i < views.size(); ++i) {
    out[i] = label(views[i - 1] * inverse(views[i]), move_threshold, third_person);
  }
  return labels;
}

}  // namespace minwm::camera
