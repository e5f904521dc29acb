#include "pose.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <opencv2/calib3d.hpp>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::eval {

std::vector<Pose> to_poses(const at::Tensor& matrices) {
  require(
      matrices.defined() && matrices.dim() == 3 && matrices.size(1) == 4 && matrices.size(2) == 4,
      "camera poses: expected a tensor [T, 4, 4]");
  const at::Tensor values = matrices.to(at::kDouble).contiguous();
  const double* m = values.const_data_ptr<double>();
  std::vector<Pose> poses(static_cast<size_t>(values.size(0)));
  for (auto& pose : poses) {
    pose.rotation = {m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]};
    pose.translation = {m[3], m[7], m[11]};
    m += 16;
  }
  return poses;
}

at::Tensor to_tensor(const std::vector<Pose>& poses) {
  at::Tensor out = at::zeros({static_cast<int64_t>(poses.size()), 4, 4}, at::kDouble);
  auto m = out.accessor<double, 3>();
  for (size_t i = 0; i < poses.size(); ++i) {
    auto frame = m[static_cast<int64_t>(i)];
    for (int row = 0; row < 3; ++row) {
      for (int column = 0; column < 3; ++column) {
        frame[row][column] = poses[i].rotation(row, column);
      }
      frame[row][3] = poses[i].translation[row];
    }
    frame[3][3] = 1;
  }
  return out;
}

cv::Vec3d rotation_vector(const cv::Matx33d& rotation) {
  cv::Vec3d vector;
  cv::Rodrigues(rotation, vector);
  return vector;
}

cv::Matx33d rotation_matrix(const cv::Vec3d& vector) {
  cv::Matx33d rotation;
  cv::Rodrigues(vector, rotation);
  return rotation;
}

double angle_degrees(const cv::Matx33d& a, const cv::Matx33d& b) {
  const double distance = cv::norm(a - b, cv::NORM_L2);
  return 2 * std::asin(std::min(1.0, distance / std::sqrt(8.0))) * 180 / std::numbers::pi;
}

}  // namespace minwm::eval
