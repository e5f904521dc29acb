#include "minwm/eval/pose_recovery.h"

#include <cmath>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "pose.h"
#include "tracks.h"

namespace minwm::eval {
namespace {

constexpr int kIterations = 15, kPasses = 2, kMinimumPoints = 10;
constexpr double kCauchy = 1, kInlier = 2, kInlierShare = .4;  // pixels, pixels, share of points
constexpr double kDamping =
    1e-6;  // keeps the solve finite where translation is unobservable (only sky in view)

// A followed corner: direction (z = 1) and inverse depth in the render's camera, where it went in
// the video.
struct Match {
  cv::Vec3d ray;
  double inverse_depth;
  cv::Vec2d seen;
};

struct Lens {
  double fx, fy, cx, cy;  // pixels; pixel centres at whole numbers
};

Lens lens_of(const data::WorldStyle& style) {
  const double width = static_cast<double>(style.width), height = static_cast<double>(style.height);
  const double focal = style.fx * width;  // square pixels
  return {focal, focal, width / 2 - .5, height / 2 - .5};
}

std::vector<Match> match_corners(const data::Rendered& render, const cv::Mat& picture,
                                 const Lens& lens) {
  const Tracks tracks = track(grey_picture(render.pixels[0]), picture);
  const at::Tensor depth = render.depth[0].contiguous();
  const auto z = depth.accessor<float, 2>();
  std::vector<Match> matches;
  for (size_t i = 0; i < tracks.size(); ++i) {
    const auto [x, y] = std::pair<double, double>(tracks.from[i].x, tracks.from[i].y);
    const double d = z[std::lround(y)][std::lround(x)];
    matches.push_back({{(x - lens.cx) / lens.fx, (y - lens.cy) / lens.fy, 1},
                       d > 0 ? 1 / d : 0,
                       {tracks.to[i].x, tracks.to[i].y}});
  }
  return matches;
}

// Reprojection error of a match under world-to-camera motion `pose`, in pixels; the point in the
// new camera in *point.
cv::Vec2d residual(const Match& match, const Pose& pose, const Lens& lens, cv::Vec3d* point) {
  *point = pose.rotation * match.ray + match.inverse_depth * pose.translation;
  const double depth = std::max((*point)[2], 1e-3);
  return {lens.fx * (*point)[0] / depth + lens.cx - match.seen[0],
          lens.fy * (*point)[1] / depth + lens.cy - match.seen[1]};
}

// Gauss-Newton with Cauchy weights from the identity: the motion (old camera to new camera) that
// explains the matches.
Pose solve(const std::vector<Match>& matches, const Lens& lens) {
  Pose pose;
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    cv::Matx66d normal = cv::Matx66d::eye() * kDamping;
    cv::Vec6d gradient{};
    for (const auto& match : matches) {
      cv::Vec3d p;
      const cv::Vec2d error = residual(match, pose, lens, &p);
      if (p[2] < 1e-3) {
        continue;
      }
      const double weight = 1 / (1 + error.dot(error) / (kCauchy * kCauchy));
      const double iz = 1 / p[2];
      const cv::Matx23d projection(lens.fx * iz, 0, -lens.fx * p[0] * iz * iz,  //
                                   0, lens.fy * iz, -lens.fy * p[1] * iz * iz);
      // d(point) = (rotation step) x point + inverse depth * (translation step)
      const cv::Matx33d turn(0, p[2], -p[1], -p[2], 0, p[0], p[1], -p[0], 0);
      const cv::Matx23d by_turn = projection * turn;
      cv::Matx<double, 2, 6> jacobian;
      for (int row = 0; row < 2; ++row) {
        for (int column = 0; column < 3; ++column) {
          jacobian(row, column) = by_turn(row, column);
          jacobian(row, column + 3) = projection(row, column) * match.inverse_depth;
        }
      }
      normal += weight * (jacobian.t() * jacobian);
      gradient += weight * (jacobian.t() * error);
    }
    cv::Vec6d step;
    if (!cv::solve(normal, -gradient, step, cv::DECOMP_CHOLESKY)) {
      break;
    }
    const cv::Matx33d turn = rotation_matrix({step[0], step[1], step[2]});
    pose.rotation = turn * pose.rotation;
    pose.translation = turn * pose.translation + cv::Vec3d(step[3], step[4], step[5]);
  }
  return pose;
}

bool agrees(const std::vector<Match>& matches, const Pose& pose, const Lens& lens) {
  int inliers = 0;
  for (const auto& match : matches) {
    cv::Vec3d point;
    const cv::Vec2d error = residual(match, pose, lens, &point);
    inliers += point[2] > 1e-3 && error.dot(error) < kInlier * kInlier;
  }
  return static_cast<int>(matches.size()) >= kMinimumPoints &&
         inliers >= kInlierShare * static_cast<double>(matches.size());
}

}  // namespace

RecoveredPath recover_path(const Commanded& clip, const at::Tensor& frames) {
  require(frames.dim() == 4 && frames.size(0) == clip.frames() &&
              frames.size(1) == clip.style.height && frames.size(2) == clip.style.width,
          "pose recovery: expected a video of {} latent frames of {}x{} pixels", clip.frames(),
          clip.style.width, clip.style.height);
  const Lens lens = lens_of(clip.style);
  auto path = to_poses(clip.camera_to_world);
  std::vector<bool> accepted(path.size(), true);
  for (size_t i = static_cast<size_t>(clip.given); i < path.size(); ++i) {
    const cv::Mat picture = grey_picture(frames[static_cast<int64_t>(i)]);
    Pose estimate = path[i - 1];
    accepted[i] = false;
    for (int pass = 0; pass < kPasses; ++pass) {
      const auto render = data::render(*clip.world, to_tensor({estimate}), true);
      const auto matches = match_corners(render, picture, lens);
      const Pose motion = solve(matches, lens);
      if (!agrees(matches, motion, lens)) {
        break;
      }
      accepted[i] = true;
      estimate = estimate * motion.inverse();
    }
    path[i] = estimate;
  }
  return {to_tensor(path), accepted};
}

PathAgreement compare_paths(const Commanded& clip, const RecoveredPath& path) {
  const auto commanded = to_poses(clip.camera_to_world), recovered = to_poses(path.camera_to_world);
  const size_t given = static_cast<size_t>(clip.given);
  const Pose origin = commanded[given - 1].inverse();
  PathAgreement sum;
  for (size_t i = given; i < commanded.size(); ++i) {
    sum.rotation_error += angle_degrees(commanded[i].rotation, recovered[i].rotation);
    sum.translation_error += cv::norm(commanded[i].translation - recovered[i].translation);
    sum.ok_share += path.accepted[i];
    const Pose c = origin * commanded[i], r = origin * recovered[i];
    const cv::Vec3d turn = rotation_vector(c.rotation);
    sum.translation_dot += c.translation.dot(r.translation);
    sum.translation_norm += c.translation.dot(c.translation);
    sum.rotation_dot += turn.dot(rotation_vector(r.rotation));
    sum.rotation_norm += turn.dot(turn);
  }
  const double count = static_cast<double>(commanded.size() - given);
  sum.rotation_error /= count;
  sum.translation_error /= count;
  sum.ok_share /= count;
  return sum;
}

}  // namespace minwm::eval
