#include "minwm/eval/trajectory_metrics.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "minwm/core/error.h"
#include "pose.h"

namespace minwm::eval {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kDegree = std::numbers::pi / 180;

struct PosePair {
  std::vector<Pose> truth, estimate;
};

PosePair read_paths(const at::Tensor& truth, const at::Tensor& estimate) {
  PosePair pair{to_poses(truth), to_poses(estimate)};
  require(pair.truth.size() == pair.estimate.size() && !pair.truth.empty(),
          "camera paths to compare have {} and {} poses, expected the same number",
          pair.truth.size(), pair.estimate.size());
  return pair;
}

std::vector<Pose> relative_to_first(const std::vector<Pose>& poses) {
  const Pose origin = poses.front().inverse();
  std::vector<Pose> relative;
  for (const auto& pose : poses) {
    relative.push_back(origin * pose);
  }
  return relative;
}

double largest_distance(const std::vector<Pose>& poses) {
  double largest = 0;
  for (const auto& pose : poses) {
    largest = std::max(largest, cv::norm(pose.translation));
  }
  return largest;
}

// <a, b> of the camera centres, summed.
double dot_centres(const std::vector<Pose>& a, const std::vector<Pose>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += a[i].translation.dot(b[i].translation);
  }
  return sum;
}

// x -> scale * motion.rotation x + motion.translation
struct Similarity {
  Pose motion;
  double scale = 1;
};

// Umeyama's closed form from the estimate's centres onto the truth's; nullopt if their covariance
// has rank < 2.
std::optional<Similarity> umeyama(const PosePair& pair, bool with_scale) {
  const double count = static_cast<double>(pair.truth.size());
  cv::Vec3d mean_truth, mean_estimate;
  for (size_t i = 0; i < pair.truth.size(); ++i) {
    mean_truth += pair.truth[i].translation / count;
    mean_estimate += pair.estimate[i].translation / count;
  }
  cv::Matx33d covariance;
  double variance = 0;
  for (size_t i = 0; i < pair.truth.size(); ++i) {
    const cv::Vec3d g = pair.truth[i].translation - mean_truth,
                    e = pair.estimate[i].translation - mean_estimate;
    covariance += cv::Matx33d(cv::Matx31d(g) * cv::Matx31d(e).t()) * (1 / count);
    variance += e.dot(e) / count;
  }
  cv::Matx31d singular;
  cv::Matx33d u, vt;
  cv::SVD::compute(covariance, singular, u, vt);
  // The usual tool's test: an absolute bound, so a path of less than 1e-8 units counts as still.
  if (singular(1) <= std::numeric_limits<double>::epsilon()) {
    return std::nullopt;
  }
  const double sign = cv::determinant(u) * cv::determinant(vt) < 0 ? -1 : 1;
  Similarity result;
  result.motion.rotation = u * cv::Matx33d::diag({1, 1, sign}) * vt;
  result.scale = with_scale ? (singular(0) + singular(1) + sign * singular(2)) / variance : 1;
  result.motion.translation = mean_truth - result.scale * (result.motion.rotation * mean_estimate);
  return result;
}

std::optional<Similarity> alignment_of(const PosePair& pair, Alignment alignment) {
  switch (alignment) {
    case Alignment::kNone:
      return Similarity{};
    case Alignment::kRigid:
      return umeyama(pair, false);
    case Alignment::kSimilarity:
      return umeyama(pair, true);
    case Alignment::kScale: {
      const auto full = umeyama(pair, true);
      return full ? std::optional(Similarity{Pose{}, full->scale}) : std::nullopt;
    }
    case Alignment::kFirstFrame:
    case Alignment::kFirstFrameScale:
      break;
  }
  const Pose &truth = pair.truth.front(), &estimate = pair.estimate.front();
  double scale = 1;
  if (alignment == Alignment::kFirstFrameScale) {
    const auto g = relative_to_first(pair.truth), e = relative_to_first(pair.estimate);
    const double norm = dot_centres(e, e);
    scale = norm > 0 ? std::max(0.0, dot_centres(g, e) / norm) : 1;
  }
  const cv::Matx33d rotation = truth.rotation * estimate.rotation.t();
  return Similarity{{rotation, truth.translation - scale * (rotation * estimate.translation)},
                    scale};
}

// Root of the mean square and mean of a list; NaN of an empty one.
struct Spread {
  double squares = 0, sum = 0;
  int count = 0;
  void add(double value) {
    squares += value * value;
    sum += value;
    ++count;
  }
  double rms() const { return count > 0 ? std::sqrt(squares / count) : kNaN; }
  double mean() const { return count > 0 ? sum / count : kNaN; }
};

}  // namespace

RelativeErrors relative_errors(const at::Tensor& truth, const at::Tensor& estimate) {
  const PosePair pair = read_paths(truth, estimate);
  const auto g = relative_to_first(pair.truth), e = relative_to_first(pair.estimate);
  constexpr double kStill = 1e-9;  // a still path is divided by this
  const double longest_truth = largest_distance(g) + kStill,
               longest_estimate = largest_distance(e) + kStill;
  RelativeErrors errors;
  for (size_t i = 0; i < g.size(); ++i) {
    const double angle = angle_degrees(g[i].rotation, e[i].rotation);
    errors.rotation_per_frame.push_back(angle * kDegree);
    errors.rotation_radians += angle * kDegree;
    errors.rotation_mean_degrees += angle / static_cast<double>(g.size());
    const double turn = cv::norm(g[i].rotation - e[i].rotation);
    const auto distance = [&](double own_scale) {
      return cv::norm(g[i].translation / longest_truth - e[i].translation / own_scale);
    };
    const double relative = distance(longest_estimate), absolute = distance(longest_truth);
    errors.translation_relative += relative;
    errors.translation_absolute += absolute;
    errors.cam_mc_relative += std::hypot(turn, relative);
    errors.cam_mc_absolute += std::hypot(turn, absolute);
  }
  return errors;
}

PathErrors path_errors(const at::Tensor& truth, const at::Tensor& estimate, Alignment alignment,
                       int64_t delta) {
  require(delta >= 1, "relative pose error over {} frames: expected at least 1", delta);
  PosePair pair = read_paths(truth, estimate);
  const auto aligned = alignment_of(pair, alignment);
  if (!aligned) {
    return {kNaN, kNaN, kNaN, kNaN, kNaN, kNaN};
  }
  Spread centres, rotations, steps, turns;
  for (auto& pose : pair.estimate) {
    pose = aligned->motion * Pose{pose.rotation, aligned->scale * pose.translation};
  }
  for (size_t i = 0; i < pair.truth.size(); ++i) {
    centres.add(cv::norm(pair.truth[i].translation - pair.estimate[i].translation));
    rotations.add(angle_degrees(pair.truth[i].rotation, pair.estimate[i].rotation));
  }
  for (size_t i = 0; i + static_cast<size_t>(delta) < pair.truth.size(); ++i) {
    const size_t j = i + static_cast<size_t>(delta);
    const Pose g = pair.truth[i].inverse() * pair.truth[j],
               e = pair.estimate[i].inverse() * pair.estimate[j];
    steps.add(cv::norm(g.translation - e.translation));
    turns.add(angle_degrees(g.rotation, e.rotation));
  }
  return {centres.rms(), centres.mean(), rotations.rms(), steps.rms(), turns.rms(), aligned->scale};
}

double translation_gain(const at::Tensor& truth, const at::Tensor& estimate) {
  const PosePair pair = read_paths(truth, estimate);
  const auto g = relative_to_first(pair.truth), e = relative_to_first(pair.estimate);
  const double norm = dot_centres(g, g);
  return norm > 1e-12 ? dot_centres(e, g) / norm : kNaN;
}

}  // namespace minwm::eval
