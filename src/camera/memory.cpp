#include "minwm/camera/memory.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <set>

#include <ATen/ATen.h>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

constexpr int64_t kChunk = 4;
constexpr double kDegrees = 180 / std::numbers::pi;

struct Direction {
  double azimuth, elevation;  ///< degrees
};

Direction direction(const Vector3& v) {
  return {std::atan2(v[0], v[2]) * kDegrees,
          std::atan2(v[1], std::sqrt(v[0] * v[0] + v[2] * v[2])) * kDegrees};
}

bool in_view(const Vector3& v, const Direction& camera, const MemoryOptions& options) {
  const Direction point = direction(v);
  return std::abs(std::remainder(point.azimuth - camera.azimuth, 360)) < options.view_width / 2 &&
         std::abs(std::remainder(point.elevation - camera.elevation, 360)) <
             options.view_height / 2;
}

/// The points that the current camera sees, in its frame.
std::vector<Vector3> visible_points(const at::Tensor& points, const MemoryOptions& options) {
  require(points.dim() == 2 && points.size(1) == 3, "memory: points must be [n, 3]");
  const at::Tensor host = points.detach().cpu().to(at::kDouble).contiguous();
  const double* p = host.const_data_ptr<double>();
  std::vector<Vector3> visible;
  for (int64_t i = 0; i < host.size(0); ++i, p += 3) {
    if (const Vector3 v = {p[0], p[1], p[2]}; in_view(v, {0, 0}, options)) {
      visible.push_back(v);
    }
  }
  return visible;
}

double overlap(const Rigid& current_view, const Rigid& historic_view,
               const std::vector<Vector3>& visible, const MemoryOptions& options) {
  if (visible.empty()) {
    return 0;
  }
  const Rigid historic = current_view * inverse(historic_view);  // camera_to_world, current = I
  const Vector3& center = historic.translation;
  const Direction axis =
      direction({historic.rotation[2], historic.rotation[5], historic.rotation[8]});
  int64_t seen = 0;
  for (const Vector3& p : visible) {
    const Vector3 v = {p[0] - center[0], p[1] - center[1], p[2] - center[2]};
    seen += std::hypot(v[0], v[1], v[2]) < options.radius && in_view(v, axis, options) ? 1 : 0;
  }
  // In float32, as upstream: the order of equal overlaps hangs on the last digit.
  return static_cast<float>(seen) / static_cast<float>(visible.size());
}

}  // namespace

at::Tensor points_in_ball(int64_t count, double radius, const RandomKey& key) {
  RandomStream stream(key);
  at::Tensor points = at::empty({count, 3}, at::kFloat);
  float* p = points.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i, p += 3) {
    const double r = radius * std::cbrt(stream.uniform());
    const double phi = 2 * std::numbers::pi * stream.uniform();
    const double cosine = 1 - 2 * stream.uniform();
    const double across = std::sqrt(1 - cosine * cosine);
    p[0] = static_cast<float>(r * across * std::cos(phi));
    p[1] = static_cast<float>(r * across * std::sin(phi));
    p[2] = static_cast<float>(r * cosine);
  }
  return points;
}

double view_overlap(const at::Tensor& current, const at::Tensor& historic, const at::Tensor& points,
                    const MemoryOptions& options) {
  return overlap(to_rigid(current).at(0), to_rigid(historic).at(0), visible_points(points, options),
                 options);
}

std::vector<int64_t> select_memory(const at::Tensor& world_to_camera, int64_t current,
                                   const at::Tensor& points, const MemoryOptions& options) {
  const std::vector<Rigid> views = to_rigid(world_to_camera);
  const auto total = static_cast<int64_t>(views.size());
  require(current >= 0 && current < total, "memory: frame {} of {} does not exist", current, total);
  if (current <= options.memory_frames) {
    std::vector<int64_t> all(static_cast<size_t>(current));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  const std::vector<Vector3> visible = visible_points(points, options);
  const int64_t context = std::max<int64_t>(0, current - options.temporal_context);
  const int64_t last_query = std::min(current + options.predicted_frames, total);

  std::vector<std::pair<double, int64_t>> candidates;
  for (int64_t h = kChunk; h < context; h += kChunk) {
    double distance = 0;
    for (int64_t q = current; q < last_query; ++q) {
      const auto apart = [&](int64_t frame) {
        return 1 - overlap(views[static_cast<size_t>(q)], views[static_cast<size_t>(frame)],
                           visible, options);
      };
      distance += (apart(h) + apart(std::min(h + 2, total - 1))) / 2;
    }
    candidates.emplace_back(distance / static_cast<double>(last_query - current), h);
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });

  const auto room =
      static_cast<size_t>(std::max<int64_t>(0, options.memory_frames - options.temporal_context));
  std::set<int64_t> memory = {0, 1, 2, 3};
  for (const auto& [distance, h] : candidates) {
    if (memory.size() >= room) {
      break;
    }
    for (int64_t frame = h; frame < h + kChunk; ++frame) {
      memory.insert(frame);
    }
  }
  for (int64_t frame = context; frame < current; ++frame) {
    memory.insert(frame);
  }
  return {memory.begin(), memory.end()};
}

}  // namespace minwm::camera
