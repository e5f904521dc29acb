#include "minwm/camera/pose_string.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

constexpr std::string_view kBlanks = " \t\r\v\f";
constexpr std::string_view kAllowedKeys =
    "w s a d (move), u dn (up, down), j l i k or left right up down (turn), . (still)";
constexpr size_t kMostMotions = 100000;  ///< 33000 times the length of a training clip

/// What one key press adds to a motion.
struct Key {
  std::string_view name;
  double Motion::*axis;
  double amount;
};

/// The first spelling of an axis and direction is the canonical one.
constexpr std::array<Key, 20> kKeys = {{{"w", &Motion::forward, kStep},
                                        {"s", &Motion::forward, -kStep},
                                        {"d", &Motion::right, kStep},
                                        {"a", &Motion::right, -kStep},
                                        {"u", &Motion::up, kStep},
                                        {"dn", &Motion::up, -kStep},
                                        {"l", &Motion::yaw, kRotationStep},
                                        {"j", &Motion::yaw, -kRotationStep},
                                        {"i", &Motion::pitch, kRotationStep},
                                        {"k", &Motion::pitch, -kRotationStep},
                                        {"right", &Motion::yaw, kRotationStep},
                                        {"left", &Motion::yaw, -kRotationStep},
                                        {"up", &Motion::pitch, kRotationStep},
                                        {"down", &Motion::pitch, -kRotationStep},
                                        {"forward", &Motion::forward, kStep},
                                        {"back", &Motion::forward, -kStep},
                                        {"right_strafe", &Motion::right, kStep},
                                        {"left_strafe", &Motion::right, -kStep},
                                        {"rise", &Motion::up, kStep},
                                        {"sink", &Motion::up, -kStep}}};
constexpr size_t kCanonicalKeys = 10;

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  return first == text.npos ? std::string_view()
                            : text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

/// One piece of the string and where it stands, for messages.
struct Piece {
  std::string_view text;
  size_t number, character;  ///< both from 1

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("pose string: piece {} '{}' at character {}: {}", number, text, character,
         fmt::format(format, std::forward<Args>(args)...));
  }
};

size_t parse_count(const Piece& piece, std::string_view text) {
  if (text.empty()) {
    piece.refuse("the count is missing, expected a whole number of latent frames");
  }
  size_t count = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') {
      piece.refuse("the count '{}' is not a whole number of 0 or more", text);
    }
    count = std::min(count * 10 + static_cast<size_t>(c - '0'), kMostMotions + 1);
  }
  return count;
}

Motion parse_keys(const Piece& piece, std::string_view text) {
  Motion motion;
  bool still = false;
  size_t keys = 0;
  while (true) {
    const size_t plus = text.find('+');
    const std::string name = lower(trim(text.substr(0, plus)));
    ++keys;
    if (name == "." || name == "n" || name == "none") {
      still = true;
    } else {
      const auto* key = std::find_if(kKeys.begin(), kKeys.end(),
                                     [&](const Key& candidate) { return candidate.name == name; });
      if (key == kKeys.end()) {
        piece.refuse("unknown key '{}', allowed: {}", name, kAllowedKeys);
      }
      if (motion.*(key->axis) != 0) {
        piece.refuse("'{}' moves along the axis of an earlier key of the same piece", name);
      }
      motion.*(key->axis) = key->amount;
    }
    if (plus == text.npos) {
      break;
    }
    text.remove_prefix(plus + 1);
  }
  if (still && keys > 1) {
    piece.refuse("standing still cannot be joined with other keys");
  }
  return motion;
}

void append_piece(const Piece& piece, std::vector<Motion>& motions) {
  const size_t separator = piece.text.find_first_of("*-:");
  const Motion motion = parse_keys(piece, piece.text.substr(0, separator));
  const size_t count =
      separator == piece.text.npos ? 1 : parse_count(piece, trim(piece.text.substr(separator + 1)));
  if (motions.size() + count > kMostMotions) {
    piece.refuse("the path has more than {} motions", kMostMotions);
  }
  motions.insert(motions.end(), count, motion);
}

/// "w+l" of one motion; "." if nothing moves.
std::string keys_of(const Motion& motion, size_t index) {
  std::string text;
  Motion rest = motion;
  for (size_t i = 0; i < kCanonicalKeys; ++i) {
    double& value = rest.*(kKeys[i].axis);
    if (value != 0 && std::abs(value - kKeys[i].amount) < 1e-9) {
      text += (text.empty() ? "" : "+") + std::string(kKeys[i].name);
      value = 0;
    }
  }
  require(rest.forward == 0 && rest.right == 0 && rest.up == 0 && rest.yaw == 0 &&
              rest.pitch == 0 && rest.third_person_yaw == 0,
          "pose string: motion {} is not a combination of whole key presses", index);
  return text.empty() ? "." : text;
}

Rigid step(const Rigid& pose, const Motion& motion) {
  Rigid out = pose;
  const auto translate = [&](double x, double y, double z) {
    out = out * Rigid{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {x, y, z}};
  };
  // The order is part of the format: rotations first, so that a compound step moves along the new
  // axes.
  if (motion.yaw != 0) out = out * yaw_rotation(motion.yaw);
  if (motion.pitch != 0) out = out * pitch_rotation(motion.pitch);
  if (motion.forward != 0) translate(0, 0, motion.forward);
  if (motion.right != 0) translate(motion.right, 0, 0);
  if (motion.up != 0) translate(0, -motion.up, 0);
  if (motion.third_person_yaw != 0) {
    // An orbit about the point 1 unit ahead.
    const Rigid away{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, -1}};
    out = out * (inverse(away) * (yaw_rotation(-motion.third_person_yaw) * away));
  }
  return out;
}

}  // namespace

std::vector<Motion> parse_pose_string(const std::string& text) {
  std::vector<Motion> motions;
  const std::string_view all = text;
  size_t begin = 0, number = 0;
  while (begin <= all.size()) {
    const size_t end = std::min(all.find_first_of(",;\n", begin), all.size());
    const std::string_view raw = all.substr(begin, end - begin);
    ++number;
    if (const std::string_view piece = trim(raw); !piece.empty()) {
      append_piece({piece, number, begin + raw.find(piece) + 1}, motions);
    }
    begin = end + 1;
  }
  return motions;
}

std::string to_pose_string(const std::vector<Motion>& motions) {
  std::string out, current;
  size_t count = 0;
  const auto flush = [&] {
    if (count > 0) {
      out += fmt::format("{}{}*{}", out.empty() ? "" : ",", current, count);
    }
  };
  for (size_t i = 0; i < motions.size(); ++i) {
    const std::string keys = keys_of(motions[i], i);
    if (keys != current) {
      flush();
      current = keys;
      count = 0;
    }
    ++count;
  }
  flush();
  return out;
}

at::Tensor integrate(const std::vector<Motion>& motions) {
  std::vector<Rigid> poses(1);
  poses.reserve(motions.size() + 1);
  for (const Motion& motion : motions) {
    poses.push_back(step(poses.back(), motion));
  }
  return to_matrices(poses);
}

at::Tensor step_pose(const at::Tensor& camera_to_world, const Motion& motion) {
  const std::vector<Rigid> poses = to_rigid(camera_to_world);
  require(poses.size() == 1, "step_pose: expected one pose [4, 4], got {}", poses.size());
  const Rigid next = step(poses[0], motion);
  return to_matrices({&next, 1})[0];
}

Cameras make_cameras(const at::Tensor& camera_to_world, double fx, double fy, int64_t frames) {
  std::vector<Rigid> poses = to_rigid(camera_to_world);
  require(!poses.empty(), "cameras: the path has no pose");
  require(fx > 0 && fy > 0 && std::isfinite(fx) && std::isfinite(fy),
          "cameras: focal lengths must be positive, got fx = {}, fy = {}", fx, fy);
  const Rigid first = poses[0];
  for (Rigid& pose : poses) {
    pose = inverse(pose) * first;
  }
  if (const auto wanted = static_cast<size_t>(frames); frames > 0 && poses.size() != wanted) {
    spdlog::warn("the camera path has {} poses for {} latent frames: {}", poses.size(), frames,
                 poses.size() > wanted ? "the rest is cut off" : "the last one is repeated");
    const Rigid last = poses.back();
    poses.resize(wanted, last);
  }
  const auto count = static_cast<int64_t>(poses.size());
  const at::Tensor intrinsics = at::tensor({fx, 0., 0.5, 0., fy, 0.5, 0., 0., 1.}, at::kDouble);
  return {to_matrices(poses).to(at::kFloat).unsqueeze(0),
          intrinsics.to(at::kFloat).reshape({1, 1, 3, 3}).repeat({1, count, 1, 1})};
}

}  // namespace minwm::camera
