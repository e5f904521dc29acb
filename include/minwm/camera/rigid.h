#pragma once
// Rigid motions in float64: what every camera path is built with.

#include <array>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::camera {

using Vector3 = std::array<double, 3>;

/// x -> R x + t. R is row major.
struct Rigid {
  std::array<double, 9> rotation = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  Vector3 translation = {0, 0, 0};

  /// R v.
  Vector3 rotate(const Vector3& v) const;
  /// The angle of R in [0, pi], stable near 0 and near pi.
  double angle() const;
};

/// First b, then a.
Rigid operator*(const Rigid& a, const Rigid& b);
/// [R^T, -R^T t].
Rigid inverse(const Rigid& a);
/// Ry(angle): angle > 0 turns a camera (y down) to the right.
Rigid yaw_rotation(double angle);
/// Rx(angle): angle > 0 tilts a camera (y down) up.
Rigid pitch_rotation(double angle);

/// Unit quaternion (x, y, z, w).
using Quaternion = std::array<double, 4>;
/// By the largest of (m00, m11, m22, trace); normalised. Spec data-camera-eval 4.
Quaternion to_quaternion(const std::array<double, 9>& rotation);
/// Normalises first, so any length > 0 will do.
std::array<double, 9> to_rotation(const Quaternion& q);
/// The shorter great arc from a (fraction 0) to b (1), at constant angular speed.
Quaternion slerp(const Quaternion& a, const Quaternion& b, double fraction);
/// Translation linear, rotation by slerp.
Rigid interpolate(const Rigid& a, const Rigid& b, double fraction);

/// [N, 4, 4] or [4, 4], any floating dtype and device -> N motions; the last row is not looked at.
/// @throws Error on another shape.
std::vector<Rigid> to_rigid(const at::Tensor& matrices);
/// -> [N, 4, 4] float64.
at::Tensor to_matrices(std::span<const Rigid> motions);

/// @throws Error naming `what` and the first bad matrix unless all are finite, the last row is
/// 0 0 0 1 and R^T R = I within `tolerance`, det R > 0.
void require_rigid(const at::Tensor& matrices, const char* what, double tolerance = 1e-3);

}  // namespace minwm::camera
