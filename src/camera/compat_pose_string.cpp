#include "minwm/camera/compat_pose_string.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

constexpr double kMostRepeats = 1e6;  ///< the originals have no limit but memory

constexpr std::string_view kSpace = " \t\n\r\v\f\x1c\x1d\x1e\x1f";  ///< Python's, in ASCII

/// Python's str.strip().
std::string_view strip(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  return first == text.npos ? std::string_view()
                            : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t end = text.find(separator); end != text.npos; end = text.find(separator, begin)) {
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}

/// Python's float(): blanks around, a sign, `_` between digits; never hexadecimal. Infinity and NaN
/// are refused here because no caller can use them.
std::optional<double> python_float(std::string_view text) {
  text = strip(text);
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_') {
      if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
        return std::nullopt;
      }
    } else {
      digits += text[i];
    }
  }
  if (digits.starts_with('+')) {
    digits.erase(0, 1);
    if (digits.starts_with('-')) {
      return std::nullopt;
    }
  }
  double value = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

std::optional<Motion> star_motion(std::string_view key, StarProgram program) {
  const bool hy = program == StarProgram::kHy;
  if (key == "w") return Motion{.forward = kStep};
  if (key == "s") return Motion{.forward = -kStep};
  if (key == "d") return Motion{.right = kStep};
  if (key == "a") return Motion{.right = -kStep};
  if (key == "u") return hy ? Motion{} : Motion{.up = kStep};
  if (key == "dn") return hy ? Motion{} : Motion{.up = -kStep};
  if (key == "l" || (hy && key == "right")) return Motion{.yaw = kRotationStep};
  if (key == "j" || (hy && key == "left")) return Motion{.yaw = -kRotationStep};
  if (key == "i" || (hy && key == "up")) return Motion{.pitch = kRotationStep};
  if (key == "k" || (hy && key == "down")) return Motion{.pitch = -kRotationStep};
  return std::nullopt;
}

std::optional<Motion> dash_motion(std::string_view action) {
  if (action == "w") return Motion{.forward = kStep};
  if (action == "s") return Motion{.forward = -kStep};
  if (action == "d") return Motion{.right = kStep};
  if (action == "a") return Motion{.right = -kStep};
  if (action == "up") return Motion{.pitch = kRotationStep};
  if (action == "down") return Motion{.pitch = -kRotationStep};
  if (action == "right") return Motion{.yaw = kRotationStep};
  if (action == "left") return Motion{.yaw = -kRotationStep};
  return std::nullopt;
}

}  // namespace

std::vector<Motion> parse_star_string(const std::string& text, StarProgram program) {
  std::vector<Motion> motions;
  for (const std::string_view raw : split(strip(text), ',')) {
    const std::string_view piece = strip(raw);
    const size_t star = piece.find('*');
    const std::string_view key = piece.substr(0, star);
    const std::string_view count = star == piece.npos ? std::string_view() : piece.substr(star + 1);
    require(!key.empty() && !count.empty() && std::all_of(key.begin(), key.end(), is_lower) &&
                std::all_of(count.begin(), count.end(), is_digit),
            "trajectory: piece '{}' is not key*count", piece);
    const auto motion = star_motion(key, program);
    require(motion.has_value(), "trajectory: unknown key '{}' in piece '{}'", key, piece);
    const double repeats = python_float(count).value_or(kMostRepeats + 1);
    require(repeats <= kMostRepeats, "trajectory: the count of piece '{}' is too large", piece);
    motions.insert(motions.end(), static_cast<size_t>(repeats), *motion);
  }
  return motions;
}

std::vector<Motion> parse_dash_string(const std::string& text, DashProgram program) {
  std::vector<Motion> motions;
  for (const std::string_view raw : split(text, ',')) {
    const std::string_view piece = strip(raw);
    if (piece.empty()) {
      continue;
    }
    const auto parts = split(piece, '-');
    require(parts.size() == 2 || (program == DashProgram::kWanLmdb && parts.size() > 2),
            "pose string: piece '{}' is not action-duration", piece);
    const auto duration = python_float(parts[1]);
    require(duration.has_value() && *duration <= kMostRepeats,
            "pose string: the duration of piece '{}' is not a usable number", piece);
    const auto motion = dash_motion(strip(parts[0]));
    // The Wan builder looks at the action only when it repeats it.
    require(motion.has_value() || (program == DashProgram::kWanLmdb && *duration < 1),
            "pose string: unknown action '{}' in piece '{}'", strip(parts[0]), piece);
    motions.insert(motions.end(), static_cast<size_t>(std::max(0., std::trunc(*duration))),
                   motion.value_or(Motion{}));
  }
  return motions;
}

std::string directory_suffix(const std::string& text, DashProgram program) {
  std::string out;
  for (const char c : text) {
    if (program != DashProgram::kWanLmdb) {
      if (kSpace.find(c) == kSpace.npos && c != ',' && c != '-') {
        out += c;
      }
    } else if (is_digit(c) || is_lower(c)) {
      out += c;
    } else if (c >= 'A' && c <= 'Z') {
      out += static_cast<char>(c - 'A' + 'a');
    }
  }
  return out;
}

}  // namespace minwm::camera
