#include "minwm/eval/rerender.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/eval/video_metrics.h"

namespace minwm::eval {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kScales[] = {-1, -.5, -.25, 0, .25, .5, .75, 1, 1.25};
constexpr int64_t kChunk = 4;             // the delay of the rival "late", in latent frames
constexpr int64_t kFirstOtherPath = 101;  // trajectory indices of a world that no data set reaches

bool same_path(const at::Tensor& a, const at::Tensor& b) {
  return at::allclose(a, b, 0, 1e-9);
}

const char* scale_name(double scale) {
  return scale == 1    ? "commanded"
         : scale == -1 ? "mirror"
         : scale == 0  ? "still"
         : scale == .5 ? "half"
                       : "";
}

}  // namespace

Rerender::Rerender(const Commanded& clip) : given_(clip.given) {
  const at::Tensor& path = clip.camera_to_world;
  still_ = same_path(path, scaled_path(path, given_, 0));
  add("commanded", path, 1, false);
  for (const double scale : kScales) {
    if (scale != 1 && !still_) {
      add(scale_name(scale), scaled_path(path, given_, scale), scale, *scale_name(scale) != 0);
    }
  }
  add("late", delayed_path(path, given_, kChunk), kNaN, true);
  for (int64_t k = 0; k < 3; ++k) {
    const std::string other =
        data::random_trajectory(clip.world_seed, kFirstOtherPath + k, path.size(0) - 1);
    add("other path " + std::to_string(k + 1), other_path(path, given_, other), kNaN, true);
  }
  std::vector<at::Tensor> poses;
  const int64_t judged = clip.frames() - given_;
  for (const auto& candidate : candidates_) {
    poses.push_back(candidate.path.narrow(0, given_, judged));
  }
  const at::Tensor pixels = data::render(*clip.world, at::cat(poses)).pixels;
  for (size_t k = 0; k < candidates_.size(); ++k) {
    candidates_[k].frames = pixels.narrow(0, static_cast<int64_t>(k) * judged, judged);
  }
}

void Rerender::add(const std::string& name, const at::Tensor& path, double scale, bool rival) {
  for (const auto& known : candidates_) {
    if (same_path(known.path, path)) {
      return;  // a rival that equals the command (late and still, for a still clip) says nothing
    }
  }
  candidates_.push_back({name, path, at::Tensor(), scale, rival});
}

RerenderScore Rerender::score(const at::Tensor& frames) const {
  const at::Tensor& truth_frames = truth();
  const int64_t judged = truth_frames.size(0);
  require(frames.dim() == 4 && frames.size(0) == judged + given_ &&
              frames.size(1) == truth_frames.size(1) && frames.size(2) == truth_frames.size(2),
          "re-render score: expected a video of {} latent frames of {}x{} pixels", judged + given_,
          truth_frames.size(2), truth_frames.size(1));
  const at::Tensor seen = frames.narrow(0, given_, judged);
  RerenderScore score;
  score.vs_mirror = kNaN;
  score.best_scale = kNaN;
  double best_rival = -1e9;
  std::vector<std::pair<double, double>> amplitude;
  for (const auto& candidate : candidates_) {
    const double value = mean_psnr(seen, candidate.frames);
    if (&candidate == &candidates_.front()) {
      score.psnr = value;
    }
    if (candidate.rival && value > best_rival) {
      best_rival = value;
      score.best_rival = candidate.name;
    }
    if (candidate.scale == -1) {
      score.vs_mirror = score.psnr - value;
    }
    if (!std::isnan(candidate.scale)) {
      amplitude.emplace_back(candidate.scale, value);
    }
  }
  score.margin = score.psnr - best_rival;
  score.top1 = score.margin > 0;
  if (!still_) {
    std::sort(amplitude.begin(), amplitude.end());
    std::vector<double> x, y;
    for (const auto& [scale, value] : amplitude) {
      x.push_back(scale);
      y.push_back(value);
    }
    score.best_scale = parabola_peak(x, y);
  }
  return score;
}

double parabola_peak(const std::vector<double>& x, const std::vector<double>& y) {
  require(x.size() == y.size() && !x.empty(), "parabola: {} abscissas, {} values", x.size(),
          y.size());
  const size_t i = static_cast<size_t>(std::max_element(y.begin(), y.end()) - y.begin());
  if (i == 0 || i + 1 == x.size()) {
    return x[i];
  }
  const double left = (y[i] - y[i - 1]) / (x[i] - x[i - 1]),
               right = (y[i + 1] - y[i]) / (x[i + 1] - x[i]);
  const double curvature = (right - left) / (x[i + 1] - x[i - 1]);
  if (curvature >= 0) {
    return x[i];
  }
  return (x[i - 1] + x[i]) / 2 - left / (2 * curvature);
}

}  // namespace minwm::eval
