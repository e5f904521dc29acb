#pragma once
// Small fixed-size pose arithmetic in double, on OpenCV's matrices.

#include <vector>

#include <opencv2/core.hpp>

#include <ATen/core/Tensor.h>

namespace minwm::eval {

/// A rigid transform: x -> rotation x + translation.
struct Pose {
  cv::Matx33d rotation = cv::Matx33d::eye();
  cv::Vec3d translation{0, 0, 0};

  Pose inverse() const { return {rotation.t(), -(rotation.t() * translation)}; }
  Pose operator*(const Pose& other) const {
    return {rotation * other.rotation, rotation * other.translation + translation};
  }
};

/// Poses of [T, 4, 4] (any float type, CPU).
std::vector<Pose> to_poses(const at::Tensor& matrices);
/// [T, 4, 4] float64.
at::Tensor to_tensor(const std::vector<Pose>& poses);

/// Rotation vector (axis times angle in radians) <-> matrix.
cv::Vec3d rotation_vector(const cv::Matx33d& rotation);
cv::Matx33d rotation_matrix(const cv::Vec3d& vector);
/// Angle between two rotations in degrees, stable near zero.
double angle_degrees(const cv::Matx33d& a, const cv::Matx33d& b);

}  // namespace minwm::eval
