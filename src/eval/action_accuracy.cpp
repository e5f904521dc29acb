#include "minwm/eval/action_accuracy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "pose.h"
#include "tracks.h"

namespace minwm::eval {
namespace {

constexpr double kGroundBelow = .6,
                 kFarthest = 6;     // generic depth: a ground plane under the horizon, capped
constexpr double kResidualCap = 4;  // pixels per latent step
constexpr double kLengthWeight =
    .15;  // translations: cost of a length that differs from the template's
constexpr double kLargestStretch =
    6;  // translations: how much nearer than the generic depth a point may be
constexpr int kMinimumPoints = 6;
constexpr int kFirstRotation = 4;  // w s a d move, j l i k turn

// Camera-to-world motion of a key over `steps` latent frames.
Pose key_motion(int key, int steps) {
  const double move = camera::kStep * steps, turn = camera::kRotationStep * steps;
  switch (key) {
    case 0:
      return {cv::Matx33d::eye(), {0, 0, move}};
    case 1:
      return {cv::Matx33d::eye(), {0, 0, -move}};
    case 2:
      return {cv::Matx33d::eye(), {-move, 0, 0}};
    case 3:
      return {cv::Matx33d::eye(), {move, 0, 0}};
    case 4:
      return {rotation_matrix({0, -turn, 0}), {}};
    case 5:
      return {rotation_matrix({0, turn, 0}), {}};
    case 6:
      return {rotation_matrix({turn, 0, 0}), {}};
    default:
      return {rotation_matrix({-turn, 0, 0}), {}};
  }
}

cv::Vec2d template_flow(const cv::Point2f& at, const Pose& world_to_camera,
                        const data::WorldStyle& style) {
  const double focal = style.fx * static_cast<double>(style.width);
  const double cx = static_cast<double>(style.width) / 2 - .5,
               cy = static_cast<double>(style.height) / 2 - .5;
  const cv::Vec3d ray((at.x - cx) / focal, (at.y - cy) / focal, 1);
  const double depth = ray[1] > 0 ? std::min(kGroundBelow / ray[1], kFarthest) : kFarthest;
  const cv::Vec3d point = world_to_camera.rotation * (ray * depth) + world_to_camera.translation;
  const double z = std::max(point[2], 1e-3);
  return {focal * point[0] / z + cx - at.x, focal * point[1] / z + cy - at.y};
}

double median(std::vector<double> values) {
  if (values.empty()) {
    return 1;
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double mean_residual(const std::vector<cv::Vec2d>& flow, const std::vector<cv::Vec2d>& expected,
                     int key, int steps) {
  // Over several steps a turn of somewhat wrong amplitude is still a turn: one common gain. Without
  // it strafing, which has a free depth per point, would always fit better.
  double gain = 1;
  if (key >= kFirstRotation && steps > 1) {
    std::vector<double> ratios;
    for (size_t i = 0; i < flow.size(); ++i) {
      ratios.push_back(expected[i].dot(flow[i]) / std::max(expected[i].dot(expected[i]), 1e-9));
    }
    gain = std::clamp(median(ratios), .4, 1.5);
  }
  double sum = 0;
  for (size_t i = 0; i < flow.size(); ++i) {
    const cv::Vec2d &d = flow[i], &u = expected[i];
    double residual = 0;
    if (key >= kFirstRotation) {
      residual = cv::norm(d - gain * u);
    } else {
      const double stretch = std::clamp(u.dot(d) / std::max(u.dot(u), 1e-9), 0.0, kLargestStretch);
      residual = cv::norm(d - stretch * u) + kLengthWeight * std::abs(cv::norm(d) - cv::norm(u));
    }
    sum += std::min(residual, kResidualCap * steps);
  }
  return sum / static_cast<double>(flow.size());
}

// The key whose flow fits best, -1 if too few corners could be followed.
int classify(const Tracks& tracks, int steps, const data::WorldStyle& style) {
  if (static_cast<int>(tracks.size()) < kMinimumPoints) {
    return -1;
  }
  std::vector<cv::Vec2d> flow;
  double still = 0;
  const double still_penalty = style.width < 96 ? .02 : .1;
  for (size_t i = 0; i < tracks.size(); ++i) {
    const cv::Point2f d = tracks.to[i] - tracks.from[i];
    flow.emplace_back(d.x, d.y);
    still += std::min(cv::norm(flow.back()) + still_penalty, kResidualCap * steps);
  }
  int best = kStill;
  double lowest = still / static_cast<double>(flow.size());
  for (int key = 0; key < kStill; ++key) {
    const Pose world_to_camera = key_motion(key, steps).inverse();
    std::vector<cv::Vec2d> expected;
    for (const auto& point : tracks.from) {
      expected.push_back(template_flow(point, world_to_camera, style));
    }
    const double residual = mean_residual(flow, expected, key, steps);
    if (residual < lowest) {
      lowest = residual;
      best = key;
    }
  }
  return best;
}

}  // namespace

void ActionCount::add(const ActionCount& other) {
  for (size_t key = 0; key < steps.size(); ++key) {
    steps[key] += other.steps[key];
    hits[key] += other.hits[key];
  }
}

int ActionCount::total_steps() const {
  return std::accumulate(steps.begin(), steps.end(), 0);
}
int ActionCount::total_hits() const {
  return std::accumulate(hits.begin(), hits.end(), 0);
}

double ActionCount::accuracy() const {
  return total_steps() > 0 ? static_cast<double>(total_hits()) / total_steps()
                           : std::numeric_limits<double>::quiet_NaN();
}

ActionScore classify_actions(const Commanded& clip, const at::Tensor& frames) {
  require(frames.dim() == 4 && frames.size(0) == clip.frames(),
          "action accuracy: expected a video of {} latent frames", clip.frames());
  const auto keys = commanded_keys(clip.camera_to_world);
  std::vector<cv::Mat> pictures;
  for (int64_t i = 0; i < clip.frames(); ++i) {
    pictures.push_back(grey_picture(frames[i]));
  }
  const auto judge = [&](int64_t i, int steps, ActionCount& count) {
    const size_t key = static_cast<size_t>(keys[static_cast<size_t>(i)]);
    const Tracks tracks =
        track(pictures[static_cast<size_t>(i - steps)], pictures[static_cast<size_t>(i)]);
    ++count.steps[key];
    count.hits[key] += classify(tracks, steps, clip.style) == static_cast<int>(key);
  };
  ActionScore score;
  for (int64_t i = clip.given; i < clip.frames(); ++i) {
    const int key = keys[static_cast<size_t>(i)];
    if (key < 0) {
      continue;
    }
    judge(i, 1, score.one);
    if (i - 3 >= clip.given - 1 && keys[static_cast<size_t>(i - 1)] == key &&
        keys[static_cast<size_t>(i - 2)] == key) {
      judge(i, 3, score.three);
    }
  }
  return score;
}

}  // namespace minwm::eval
