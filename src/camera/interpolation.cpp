#include "minwm/camera/interpolation.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "minwm/camera/poses.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

void require_increasing(const std::vector<int64_t>& frames) {
  const auto bad = std::adjacent_find(frames.begin(), frames.end(), std::greater_equal<>());
  require(bad == frames.end(), "camera frame indices must increase, {} is followed by {}",
          bad == frames.end() ? 0 : *bad, bad == frames.end() ? 0 : *(bad + 1));
}

}  // namespace

at::Tensor interpolate_poses7(const at::Tensor& poses7, const std::vector<int64_t>& frames,
                              const std::vector<int64_t>& targets) {
  const std::vector<Rigid> known = to_rigid(from_poses7(poses7));
  require(!known.empty() && known.size() == frames.size(),
          "pose interpolation: {} poses for {} frame indices", known.size(), frames.size());
  require_increasing(frames);
  std::vector<Rigid> out;
  for (const int64_t raw : targets) {
    const int64_t target = std::clamp(raw, frames.front(), frames.back());
    const auto next = std::lower_bound(frames.begin(), frames.end(), target);
    const auto b = static_cast<size_t>(next - frames.begin());
    if (*next == target) {
      out.push_back(known[b]);
      continue;
    }
    const double fraction = static_cast<double>(target - frames[b - 1]) /
                            static_cast<double>(frames[b] - frames[b - 1]);
    out.push_back(interpolate(known[b - 1], known[b], fraction));
  }
  return to_poses7(to_matrices(out));
}

std::optional<std::vector<int64_t>> pick_frames(const std::vector<int64_t>& cameras,
                                                int64_t count) {
  require(count > 0 && count % 4 == 1, "cannot pick {} frames, expected 4 n + 1", count);
  require_increasing(cameras);
  const auto needed = static_cast<size_t>((count - 1) / 4 + 1);
  if (cameras.size() < needed) {
    return std::nullopt;
  }
  const size_t start = (cameras.size() - needed) / 2;
  std::vector<int64_t> frames = {cameras[start]};
  for (size_t i = start + 1; i < start + needed; ++i) {
    const auto a = static_cast<double>(cameras[i - 1]), b = static_cast<double>(cameras[i]);
    for (int j = 1; j <= 3; ++j) {
      frames.push_back(std::llrint(a + j * (b - a) / 4));  // rounds half to even
    }
    frames.push_back(cameras[i]);
  }
  return frames;
}

}  // namespace minwm::camera
