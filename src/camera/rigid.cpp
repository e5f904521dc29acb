#include "minwm/camera/rigid.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::camera {

Vector3 Rigid::rotate(const Vector3& v) const {
  Vector3 out{};
  for (int i = 0; i < 3; ++i) {
    out[i] = rotation[3 * i] * v[0] + rotation[3 * i + 1] * v[1] + rotation[3 * i + 2] * v[2];
  }
  return out;
}

double Rigid::angle() const {
  // sin from the antisymmetric part, cos from the trace: unlike arccos this keeps all digits.
  const auto& m = rotation;
  const double sine = std::hypot(m[7] - m[5], m[2] - m[6], m[3] - m[1]) / 2;
  return std::atan2(sine, (m[0] + m[4] + m[8] - 1) / 2);
}

Rigid operator*(const Rigid& a, const Rigid& b) {
  Rigid out;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      out.rotation[3 * i + j] = a.rotation[3 * i] * b.rotation[j] +
                                a.rotation[3 * i + 1] * b.rotation[3 + j] +
                                a.rotation[3 * i + 2] * b.rotation[6 + j];
    }
  }
  const Vector3 moved = a.rotate(b.translation);
  for (int i = 0; i < 3; ++i) {
    out.translation[i] = moved[i] + a.translation[i];
  }
  return out;
}

Rigid inverse(const Rigid& a) {
  Rigid out;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      out.rotation[3 * i + j] = a.rotation[3 * j + i];
    }
  }
  const Vector3 moved = out.rotate(a.translation);
  out.translation = {-moved[0], -moved[1], -moved[2]};
  return out;
}

Rigid yaw_rotation(double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  return {{c, 0, s, 0, 1, 0, -s, 0, c}, {0, 0, 0}};
}

Rigid pitch_rotation(double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  return {{1, 0, 0, 0, c, -s, 0, s, c}, {0, 0, 0}};
}

Quaternion to_quaternion(const std::array<double, 9>& m) {
  const double trace = m[0] + m[4] + m[8];
  const std::array<double, 4> decision = {m[0], m[4], m[8], trace};
  const auto largest = std::max_element(decision.begin(), decision.end()) - decision.begin();
  Quaternion q{};
  if (largest == 3) {
    q = {m[7] - m[5], m[2] - m[6], m[3] - m[1], 1 + trace};
  } else {
    const auto i = static_cast<int>(largest);
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    q[i] = 1 - trace + 2 * m[4 * i];
    q[j] = m[3 * j + i] + m[3 * i + j];
    q[k] = m[3 * k + i] + m[3 * i + k];
    q[3] = m[3 * k + j] - m[3 * j + k];
  }
  const double norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  for (double& value : q) {
    value /= norm;
  }
  return q;
}

std::array<double, 9> to_rotation(const Quaternion& q) {
  const double squared = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
  require(squared > 0, "camera pose: the quaternion is zero");
  const double s = 2 / squared, x = q[0], y = q[1], z = q[2], w = q[3];
  return {1 - s * (y * y + z * z), s * (x * y - z * w),     s * (x * z + y * w),
          s * (x * y + z * w),     1 - s * (x * x + z * z), s * (y * z - x * w),
          s * (x * z - y * w),     s * (y * z + x * w),     1 - s * (x * x + y * y)};
}

Quaternion slerp(const Quaternion& a, const Quaternion& b, double fraction) {
  double cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  const double sign = cosine < 0 ? -1 : 1;  // q and -q are one rotation: take the near one
  double sine_squared = 0;
  for (int i = 0; i < 4; ++i) {
    const double across = sign * b[i] - std::abs(cosine) * a[i];
    sine_squared += across * across;
  }
  const double angle = std::atan2(std::sqrt(sine_squared), std::abs(cosine));
  double from = 1 - fraction, to = fraction;
  if (angle > 1e-9) {  // below, the chord is the arc
    from = std::sin((1 - fraction) * angle) / std::sin(angle);
    to = std::sin(fraction * angle) / std::sin(angle);
  }
  Quaternion out{};
  for (int i = 0; i < 4; ++i) {
    out[i] = from * a[i] + to * sign * b[i];
  }
  return out;
}

Rigid interpolate(const Rigid& a, const Rigid& b, double fraction) {
  Rigid out;
  out.rotation = to_rotation(slerp(to_quaternion(a.rotation), to_quaternion(b.rotation), fraction));
  for (int i = 0; i < 3; ++i) {
    out.translation[i] = (1 - fraction) * a.translation[i] + fraction * b.translation[i];
  }
  return out;
}

namespace {

/// [N, 4, 4] contiguous float64 on the host.
at::Tensor host_matrices(const at::Tensor& matrices) {
  require(matrices.defined() && (matrices.dim() == 2 || matrices.dim() == 3) &&
              matrices.size(-1) == 4 && matrices.size(-2) == 4,
          "camera poses must be [N, 4, 4]");
  return matrices.detach().cpu().to(at::kDouble).reshape({-1, 4, 4}).contiguous();
}

}  // namespace

std::vector<Rigid> to_rigid(const at::Tensor& matrices) {
  const at::Tensor host = host_matrices(matrices);
  std::vector<Rigid> out(static_cast<size_t>(host.size(0)));
  const double* m = host.const_data_ptr<double>();
  for (Rigid& motion : out) {
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        motion.rotation[3 * i + j] = m[4 * i + j];
      }
      motion.translation[i] = m[4 * i + 3];
    }
    m += 16;
  }
  return out;
}

at::Tensor to_matrices(std::span<const Rigid> motions) {
  at::Tensor out = at::zeros({static_cast<int64_t>(motions.size()), 4, 4}, at::kDouble);
  double* m = out.mutable_data_ptr<double>();
  for (const Rigid& motion : motions) {
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        m[4 * i + j] = motion.rotation[3 * i + j];
      }
      m[4 * i + 3] = motion.translation[i];
    }
    m[15] = 1;
    m += 16;
  }
  return out;
}

void require_rigid(const at::Tensor& matrices, const char* what, double tolerance) {
  const at::Tensor host = host_matrices(matrices);
  const std::vector<Rigid> motions = to_rigid(host);
  const double* last_row = host.const_data_ptr<double>() + 12;
  for (size_t i = 0; i < motions.size(); ++i, last_row += 16) {
    require(host.select(0, static_cast<int64_t>(i)).isfinite().all().item<bool>(),
            "{}: pose {} has numbers that are not finite", what, i);
    require(last_row[0] == 0 && last_row[1] == 0 && last_row[2] == 0 && last_row[3] == 1,
            "{}: pose {} has the last row {} {} {} {}, expected 0 0 0 1", what, i, last_row[0],
            last_row[1], last_row[2], last_row[3]);
    const auto& r = motions[i].rotation;
    double worst = 0;
    for (int a = 0; a < 3; ++a) {
      for (int b = 0; b < 3; ++b) {
        const double dot = r[a] * r[b] + r[3 + a] * r[3 + b] + r[6 + a] * r[6 + b];
        worst = std::max(worst, std::abs(dot - (a == b ? 1 : 0)));
      }
    }
    const double determinant = r[0] * (r[4] * r[8] - r[5] * r[7]) -
                               r[1] * (r[3] * r[8] - r[5] * r[6]) +
                               r[2] * (r[3] * r[7] - r[4] * r[6]);
    require(worst <= tolerance && determinant > 0,
            "{}: pose {} is not a rotation and a translation (R^T R differs from I by {:.3g}, det "
            "R = {:.3g})",
            what, i, worst, determinant);
  }
}

}  // namespace minwm::camera
