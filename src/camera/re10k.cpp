#include "minwm/camera/re10k.h"

#include <charconv>
#include <cmath>
#include <string_view>
#include <vector>

#include <ATen/ATen.h>

#include "minwm/camera/poses.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::camera {
namespace {

constexpr size_t kNumbersPerLine = 19;

std::vector<std::string_view> words(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r\v\f";
  std::vector<std::string_view> out;
  size_t begin = line.find_first_not_of(kBlanks);
  while (begin != line.npos) {
    const size_t end = std::min(line.find_first_of(kBlanks, begin), line.size());
    out.push_back(line.substr(begin, end - begin));
    begin = line.find_first_not_of(kBlanks, end);
  }
  return out;
}

template <class T>
bool parse(std::string_view word, T& value) {
  const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && stop == word.data() + word.size();
}

/// A pose line as numbers; the timestamp separately, it needs all 64 bits.
struct PoseLine {
  int64_t timestamp;
  std::vector<double> numbers;  ///< the other 18
};

PoseLine parse_line(const std::vector<std::string_view>& fields, const std::string& source,
                    size_t line) {
  require(fields.size() == kNumbersPerLine, "{} line {}: {} numbers, expected {}", source, line,
          fields.size(), kNumbersPerLine);
  PoseLine out;
  require(parse(fields[0], out.timestamp),
          "{} line {}: the timestamp '{}' is not a whole number of microseconds", source, line,
          fields[0]);
  for (size_t i = 1; i < fields.size(); ++i) {
    double value = 0;
    require(parse(fields[i], value) && std::isfinite(value), "{} line {}: '{}' is not a number",
            source, line, fields[i]);
    out.numbers.push_back(value);
  }
  require(out.numbers[0] > 0 && out.numbers[1] > 0,
          "{} line {}: focal lengths {} {} are not positive", source, line, out.numbers[0],
          out.numbers[1]);
  return out;
}

}  // namespace

Re10kClip parse_re10k(const std::string& text, const std::string& source) {
  std::vector<std::string_view> lines;
  const std::string_view all = text;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    lines.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  while (!lines.empty() && words(lines.back()).empty()) {
    lines.pop_back();
  }
  require(!lines.empty(), "{}: the file is empty", source);
  const auto first = words(lines[0]);
  require(first.size() == 1, "{} line 1: expected the source URL, got {} words", source,
          first.size());
  require(lines.size() > 1, "{}: no pose after the URL", source);

  Re10kClip clip;
  clip.url = std::string(first[0]);
  std::vector<int64_t> timestamps;
  std::vector<double> intrinsics;
  std::vector<Rigid> views;
  for (size_t i = 1; i < lines.size(); ++i) {
    const PoseLine line = parse_line(words(lines[i]), source, i + 1);
    timestamps.push_back(line.timestamp);
    intrinsics.insert(intrinsics.end(), line.numbers.begin(), line.numbers.begin() + 4);
    Rigid view;
    for (int row = 0; row < 3; ++row) {
      for (int column = 0; column < 3; ++column) {
        view.rotation[3 * row + column] = line.numbers[6 + 4 * row + column];
      }
      view.translation[row] = line.numbers[6 + 4 * row + 3];
    }
    require_rigid(to_matrices({&view, 1}), fmt::format("{} line {}", source, i + 1).c_str());
    views.push_back(view);
  }
  clip.timestamps_us = at::tensor(timestamps, at::kLong);
  clip.intrinsics = at::tensor(intrinsics, at::kDouble).reshape({-1, 4});
  clip.world_to_camera = to_matrices(views);
  return clip;
}

Re10kClip read_re10k(const std::filesystem::path& file) {
  return parse_re10k(read_file(file), file.string());
}

Cameras Re10kClip::cameras() const {
  return cameras_from_poses7(to_poses7(world_to_camera), intrinsics[0]);
}

at::Tensor relative_poses(const at::Tensor& world_to_camera, FirstCamera first) {
  std::vector<Rigid> poses = to_rigid(world_to_camera);
  require(!poses.empty(), "camera poses: there is no first camera");
  const Vector3 center = inverse(poses[0]).translation;
  Rigid target;
  if (first == FirstCamera::kKeepDistance) {
    target.translation[1] = -std::hypot(center[0], center[1], center[2]);
  }
  const Rigid to_first = target * poses[0];
  for (Rigid& pose : poses) {
    pose = to_first * inverse(pose);
  }
  poses[0] = target;  // exactly, not up to rounding
  return to_matrices(poses);
}

at::Tensor fit_intrinsics(const at::Tensor& intrinsics4, double source_aspect, int64_t width,
                          int64_t height) {
  const double target_aspect = static_cast<double>(width) / static_cast<double>(height);
  at::Tensor out = intrinsics4.clone();
  if (source_aspect > target_aspect) {
    out.select(1, 0).mul_(source_aspect / target_aspect);
  } else {
    out.select(1, 1).mul_(target_aspect / source_aspect);
  }
  return out;
}

at::Tensor pluecker_rays(const at::Tensor& camera_to_world, const at::Tensor& intrinsics4,
                         int64_t width, int64_t height) {
  require(camera_to_world.dim() == 3 && intrinsics4.dim() == 2 && intrinsics4.size(1) == 4 &&
              intrinsics4.size(0) == camera_to_world.size(0),
          "Plücker rays: expected poses [N, 4, 4] and intrinsics [N, 4]");
  const int64_t frames = camera_to_world.size(0);
  const at::Tensor pose = camera_to_world.to(at::kDouble);
  const at::Tensor k = intrinsics4.to(at::kDouble).reshape({frames, 4, 1, 1});
  const auto centers = [](int64_t count) {
    return (at::arange(count, at::kDouble) + 0.5) / static_cast<double>(count);
  };
  const at::Tensor x = (centers(width).reshape({1, 1, width}) - k.select(1, 2)) / k.select(1, 0);
  const at::Tensor y = (centers(height).reshape({1, height, 1}) - k.select(1, 3)) / k.select(1, 1);
  const at::Tensor in_camera =
      at::stack(at::broadcast_tensors({x, y, at::ones({1, 1, 1}, at::kDouble)}), 3);
  const at::Tensor unit = in_camera / in_camera.norm(2, {3}, true);
  const at::Tensor rotation = pose.narrow(1, 0, 3).narrow(2, 0, 3).reshape({frames, 1, 3, 3});
  const at::Tensor direction = at::matmul(unit, rotation.transpose(2, 3));
  const at::Tensor origin =
      pose.narrow(1, 0, 3).select(2, 3).reshape({frames, 1, 1, 3}).expand_as(direction);
  return at::cat({at::cross(origin, direction, 3), direction}, 3)
      .permute({0, 3, 1, 2})
      .contiguous()
      .to(at::kFloat);
}

}  // namespace minwm::camera
