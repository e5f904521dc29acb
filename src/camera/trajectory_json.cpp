#include "minwm/camera/trajectory_json.h"

#include <vector>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/camera/action_labels.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::camera {
namespace {

// Keeps the file's order; the default type would sort the keys 0, 1, 10, 11, ....
using Json = nlohmann::ordered_json;

Json parse_object(const std::string& text, const std::string& source) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not valid JSON: {}", source, error.what());
  }
  require(json.is_object(), "{}: expected an object with one entry per pose", source);
  return json;
}

/// The entries that are poses, with "source: entry 'key'" for messages.
struct Entry {
  std::string where;
  Json value;
};

std::vector<Entry> entries(const Json& json, const std::string& source) {
  std::vector<Entry> out;
  for (const auto& [key, value] : json.items()) {
    if (key != "_metadata") {
      out.push_back({source + ": entry '" + key + "'", value});
    }
  }
  require(!out.empty(), "{}: no pose in the file", source);
  return out;
}

const Json& field(const Entry& entry, const char* name) {
  require(entry.value.is_object() && entry.value.contains(name), "{} has no '{}'", entry.where,
          name);
  return entry.value.at(name);
}

at::Tensor matrix(const Entry& entry, const char* name, int64_t size) {
  const Json& rows = field(entry, name);
  std::vector<double> numbers;
  bool good = rows.is_array() && rows.size() == static_cast<size_t>(size);
  for (size_t i = 0; good && i < rows.size(); ++i) {
    good = rows[i].is_array() && rows[i].size() == static_cast<size_t>(size);
    for (size_t j = 0; good && j < rows[i].size(); ++j) {
      good = rows[i][j].is_number();
      numbers.push_back(good ? rows[i][j].get<double>() : 0);
    }
  }
  require(good, "{}: '{}' is not a {} x {} matrix of numbers", entry.where, name, size, size);
  return at::tensor(numbers, at::kDouble).reshape({size, size});
}

/// Poses and normalised intrinsics of the chosen entries.
std::pair<at::Tensor, at::Tensor> read_matrices(const std::vector<Entry>& list, const char* pose,
                                                const char* k) {
  std::vector<at::Tensor> poses, intrinsics;
  for (const Entry& entry : list) {
    poses.push_back(matrix(entry, pose, 4));
    require_rigid(poses.back(), fmt::format("{}: '{}'", entry.where, pose).c_str());
    try {
      intrinsics.push_back(normalize_intrinsics(matrix(entry, k, 3).unsqueeze(0)));
    } catch (const Error& error) {
      fail("{}: {}", entry.where, error.what());
    }
  }
  return {at::stack(poses), at::cat(intrinsics)};
}

int64_t label_of(const Entry& entry) {
  const Json& move = field(entry, "move_action");
  const Json& view = field(entry, "view_action");
  require(move.is_string() && view.is_string(),
          "{}: 'move_action' and 'view_action' must be strings", entry.where);
  const auto pressed = [&](char key) {
    return move.get<std::string>().find(key) != std::string::npos ? 1 : 0;
  };
  const std::string look = view.get<std::string>();
  const int yaw = look == "LR" ? 1 : look == "LL" ? -1 : 0;
  const int pitch = look == "LU" ? 1 : look == "LD" ? -1 : 0;
  return 9 * motion_class(pressed('W') - pressed('S'), pressed('D') - pressed('A')) +
         motion_class(yaw, pitch);
}

/// Entry 4k for each latent frame k.
std::vector<Entry> every_fourth(const std::vector<Entry>& list, int64_t frames,
                                const std::string& source) {
  require(frames > 0 && list.size() >= static_cast<size_t>(4 * (frames - 1) + 1),
          "{}: {} entries, {} latent frames need {}", source, list.size(), frames,
          4 * (frames - 1) + 1);
  std::vector<Entry> out;
  for (int64_t k = 0; k < frames; ++k) {
    out.push_back(list[static_cast<size_t>(4 * k)]);
  }
  return out;
}

Json rows(const at::Tensor& matrix) {
  Json out = Json::array();
  for (int64_t i = 0; i < matrix.size(0); ++i) {
    Json row = Json::array();
    for (int64_t j = 0; j < matrix.size(1); ++j) {
      row.push_back(matrix[i][j].item<double>());
    }
    out.push_back(row);
  }
  return out;
}

}  // namespace

Cameras Trajectory::cameras() const {
  return {align_to_first(invert_poses(camera_to_world)).to(at::kFloat).unsqueeze(0),
          intrinsics.to(at::kFloat).unsqueeze(0)};
}

Trajectory parse_trajectory_json(const std::string& text, const std::string& source) {
  const Json json = parse_object(text, source);
  const auto [poses, intrinsics] = read_matrices(entries(json, source), "extrinsic", "K");
  Trajectory out{poses, intrinsics, ""};
  if (json.contains("_metadata") && json["_metadata"].is_object()) {
    const Json& metadata = json["_metadata"];
    if (metadata.contains("action_str") && metadata["action_str"].is_string()) {
      out.action_string = metadata["action_str"].get<std::string>();
    }
  }
  return out;
}

Trajectory read_trajectory_json(const std::filesystem::path& file) {
  return parse_trajectory_json(read_file(file), file.string());
}

std::string to_trajectory_json(const Trajectory& trajectory, double width, double height) {
  Json json = Json::object();
  if (!trajectory.action_string.empty()) {
    json["_metadata"]["action_str"] = trajectory.action_string;
  }
  const at::Tensor to_pixels =
      at::tensor({width, width, width, height, height, height, 1., 1., 1.}, at::kDouble)
          .reshape({3, 3});
  for (int64_t i = 0; i < trajectory.camera_to_world.size(0); ++i) {
    json[std::to_string(i)] = {{"extrinsic", rows(trajectory.camera_to_world[i])},
                               {"K", rows(trajectory.intrinsics[i] * to_pixels)}};
  }
  return json.dump(1) + "\n";
}

TrainingTrajectory parse_training_json(const std::string& pose_text, const std::string& action_text,
                                       int64_t frames, const std::string& source) {
  const auto poses = every_fourth(entries(parse_object(pose_text, source), source), frames, source);
  TrainingTrajectory out;
  std::tie(out.world_to_camera, out.intrinsics) = read_matrices(poses, "w2c", "intrinsic");
  if (!action_text.empty()) {
    const auto actions =
        every_fourth(entries(parse_object(action_text, source), source), frames, source);
    out.labels = at::zeros({frames}, at::kLong);
    for (int64_t k = 1; k < frames; ++k) {
      out.labels[k] = label_of(actions[static_cast<size_t>(k)]);
    }
  }
  return out;
}

}  // namespace minwm::camera
