// Pose strings and JSON trajectories. Spec data-camera-eval 2, 16.

#include <algorithm>

#include "camera_case.h"
#include "minwm/camera/action_labels.h"
#include "minwm/camera/compat_pose_string.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/trajectory_json.h"

namespace minwm::golden {
namespace {

using namespace camera;  // NOLINT(google-build-using-namespace): the words of these cases

std::string strip(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// Python's int(). @throws Error if it is not a whole number.
int64_t python_int(const std::string& raw) {
  const std::string text = strip(raw);
  std::string digits;
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  for (size_t i = sign; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    const bool between = text[i] == '_' && i > sign && i + 1 < text.size() && text[i - 1] != '_';
    require(digit || between, "'{}' is not a whole number", text);
    digits += digit ? text.substr(i, 1) : "";
  }
  require(!digits.empty() && digits.size() < 19, "'{}' is not a usable number", text);
  return (text[0] == '-' ? -1 : 1) * std::stoll(digits);
}

at::Tensor views_of(const std::vector<Motion>& motions) {
  return invert_poses(integrate(motions));
}

/// Our own grammar must give the reference's poses for what both accept.
void check_superset(Report& report, const std::string& name, const std::string& text,
                    const at::Tensor& views) {
  std::vector<Motion> motions;
  if (accepts([&] { motions = parse_pose_string(text); })) {
    report.compare(name, views_of(motions), views);
  }
}

void replay_star(const Case& c, Report& report) {
  const auto frames = c.config.at("T_lat").get<int64_t>();
  const auto k = c.config.at("wan_default_K").get<std::vector<double>>();
  const auto& strings = c.config.at("strings");
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto text = strings[i].get<std::string>();
    const std::string at = std::to_string(i) + "/";
    const auto wan = [&] { return parse_star_string(text, StarProgram::kWan); };
    const auto hy = [&] { return parse_star_string(text, StarProgram::kHy); };
    if (c.config.at("wan_ok")[i].get<bool>()) {
      const at::Tensor views = views_of(wan());
      report.compare(at + "wan_viewmats", views.to(at::kFloat), c.out(at + "wan_viewmats"));
      report.compare(at + "wan_Ks", intrinsics_matrices(k[0], k[1], k[2], k[3], views.size(0)),
                     c.out(at + "wan_Ks"));
      report.check(at + "superset", accepts([&] { parse_pose_string(text); }),
                   "refused '" + text + "'");
      check_superset(report, at + "superset", text, c.out(at + "wan_viewmats"));
    } else {
      check_refused(c, report, at + "wan_viewmats", wan);
    }
    if (c.config.at("hy_ok")[i].get<bool>()) {
      report.compare(at + "hy_viewmats", views_of(hy()).to(at::kFloat), c.out(at + "hy_viewmats"));
      const Cameras padded = make_cameras(integrate(hy()), kDefaultFx, kDefaultFy, frames);
      report.compare(at + "hy_viewmats_padded", padded.world_to_camera[0],
                     c.out(at + "hy_viewmats_padded"));
    } else {
      check_refused(c, report, at + "hy_viewmats", hy);
    }
    if (c.config.at("label_ok")[i].get<bool>()) {
      report.equal(at + "string_labels", string_labels(text, frames), c.out(at + "string_labels"));
    } else {
      check_refused(c, report, at + "string_labels", [&] { string_labels(text, frames); });
    }
  }
}

/// What the data set builders store and the training loaders make of it.
void compare_training(const Case& c, Report& report, const std::string& at,
                      const std::vector<Motion>& motions) {
  const at::Tensor expected = c.out(at + "poses7");
  const int64_t frames = expected.size(0);
  const at::Tensor poses7 = to_poses7(views_of(motions).slice(0, 0, frames));
  const at::Tensor intrinsics = at::tensor({kDefaultFx, kDefaultFy, 0.5, 0.5}, at::kDouble);
  report.compare(at + "poses7", match_signs(poses7, expected), expected);
  report.compare(at + "intrinsics", intrinsics.to(at::kFloat), c.out(at + "intrinsics"));
  const Cameras cameras = cameras_from_poses7(poses7, intrinsics);
  report.compare(at + "train_viewmats", cameras.world_to_camera[0], c.out(at + "train_viewmats"));
  report.compare(at + "train_Ks", cameras.intrinsics[0], c.out(at + "train_Ks"));
  report.equal(at + "train_labels", action_labels(cameras.world_to_camera[0]),
               c.out(at + "train_labels"));
}

void replay_dash(const Case& c, Report& report) {
  constexpr size_t kMotions = 19;  // the builders need 20 poses
  const auto& strings = c.config.at("strings");
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto text = strings[i].get<std::string>();
    const std::string at = std::to_string(i) + "/";
    if (c.config.at("worldplay_ok")[i].get<bool>()) {
      const at::Tensor views = views_of(parse_dash_string(text, DashProgram::kWorldPlay));
      report.compare(at + "w2c", views, c.out(at + "w2c"));
      report.compare(at + "Ks",
                     intrinsics_matrices(kDefaultFx, kDefaultFy, 0.5, 0.5, views.size(0)),
                     c.out(at + "Ks"));
      report.equal(at + "labels", action_labels(views, kInferenceMoveThreshold),
                   c.out(at + "labels"));
      check_superset(report, at + "superset", text, c.out(at + "w2c"));
    } else {
      check_refused(c, report, at + "w2c",
                    [&] { parse_dash_string(text, DashProgram::kWorldPlay); });
    }
    const auto builder = [&](const char* key, DashProgram program) {
      std::vector<Motion> motions;
      const bool ours = accepts([&] { motions = parse_dash_string(text, program); }) &&
                        motions.size() >= kMotions;
      const bool reference = c.config.at(key)[i].get<bool>();
      report.check(at + key, ours == reference, ours ? "accepted" : "refused");
      if (ours && reference) {
        compare_training(c, report, at, motions);
      }
    };
    builder("wan_lmdb_ok", DashProgram::kWanLmdb);
    builder("hy_preencode_ok", DashProgram::kHyPreencoder);
    const auto suffix = [&](const char* key, DashProgram program) {
      const std::string ours = directory_suffix(text, program);
      report.check(at + key, ours == c.config.at(key)[i].get<std::string>(), "ours is " + ours);
    };
    suffix("suffix_wan", DashProgram::kWanLmdb);
    suffix("suffix_hy", DashProgram::kHyPreencoder);
  }
}

/// The JSON file: the metadata writer sorted its keys as strings, the file had them by number.
std::string in_file_order(const nlohmann::ordered_json& sorted) {
  std::vector<std::pair<double, std::string>> keys;
  for (const auto& [key, value] : sorted.items()) {
    keys.emplace_back(key.starts_with("_") ? -1. : std::stod(key), key);
  }
  std::sort(keys.begin(), keys.end());
  nlohmann::ordered_json file = nlohmann::ordered_json::object();
  for (const auto& [number, key] : keys) {
    file[key] = sorted.at(key);
  }
  return file.dump();
}

void replay_json(const Case& c, Report& report) {
  const Trajectory path = parse_trajectory_json(in_file_order(c.config.at("file")), "trajectory");
  report.equal("in/extrinsic", path.camera_to_world, c.in("extrinsic"));
  report.compare("normalize in/K", normalize_intrinsics(c.in("K")), c.out("Ks"));
  const at::Tensor views = invert_poses(path.camera_to_world);
  report.compare("w2c", views, c.out("w2c"));
  report.compare("Ks", path.intrinsics, c.out("Ks"));
  report.equal("labels",
               action_labels(views, kInferenceMoveThreshold, c.config.value("tps", false)),
               c.out("labels"));
  report.compare("w2c_first_frame", align_to_first(views), c.out("w2c_first_frame"));
  report.compare("cameras", path.cameras().world_to_camera[0], c.out("w2c_first_frame"));
  // What we write we read back.
  const Trajectory again = parse_trajectory_json(to_trajectory_json(path, 1920, 1080), "written");
  report.compare("written poses", again.camera_to_world, c.in("extrinsic"));
  report.compare("written intrinsics", again.intrinsics, c.out("Ks"));
}

const bool registered[] = {register_kind("camera.pose.star", replay_star),
                           register_kind("camera.pose.dash", replay_dash),
                           register_kind("camera.pose.json", replay_json)};

}  // namespace

at::Tensor string_labels(const std::string& text, int64_t frames) {
  at::Tensor labels = at::zeros({frames}, at::kLong);
  int64_t next = 1;
  for (size_t begin = 0; begin <= text.size() && !strip(text).empty();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string piece = strip(text.substr(begin, end - begin));
    const size_t star = piece.find('*');
    std::string key = strip(piece.substr(0, star));
    std::transform(key.begin(), key.end(), key.begin(), [](char c) { return std::tolower(c); });
    const int64_t count = star == piece.npos ? 1 : python_int(piece.substr(star + 1));
    static const std::map<std::string, int64_t> kLabels = {
        {"w", 9}, {"s", 18}, {"a", 27}, {"d", 36}, {"j", 2}, {"l", 1}, {"i", 3}, {"k", 4}};
    const auto known = kLabels.find(key);
    for (int64_t i = 0; i < count && next < frames; ++i) {
      labels[next++] = known == kLabels.end() ? 0 : known->second;
    }
    begin = end + 1;
  }
  return labels;
}

}  // namespace minwm::golden
