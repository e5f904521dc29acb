#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "import_clips.h"
#include "minwm/camera/compat_pose_string.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/trajectory_json.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct ListItem {
  std::string caption, pose_text, pose_json;
};

std::vector<ListItem> read_list(const fs::path& file) {
  std::vector<ListItem> items;
  try {
    const Json list = Json::parse(read_file(file));
    require(list.is_array(), "{}: expected a list of clips", file.string());
    for (const Json& entry : list) {
      items.push_back({entry.at("caption").get<std::string>(),
                       entry.at("pose_str").get<std::string>(), entry.value("pose_json_path", "")});
    }
  } catch (const nlohmann::json::exception& error) {
    fail("{}: entry {}: {}", file.string(), items.size(), error.what());
  }
  return items;
}

/// The film's video: the two published builders spell its folder differently in rare cases.
fs::path find_video(const fs::path& root, int64_t index, const std::string& pose_text) {
  using camera::DashProgram;
  fs::path path;
  for (const auto program : {DashProgram::kWanLmdb, DashProgram::kHyPreencoder}) {
    path = root / "videos" /
           fmt::format("{:06d}_{}", index, camera::directory_suffix(pose_text, program)) /
           "gen.mp4";
    if (fs::exists(path)) {
      break;
    }
  }
  require(fs::exists(path), "{}: there is no such video", path.string());
  return path;
}

Film read_film(const fs::path& root, int64_t index, const ListItem& item,
               const std::string& sample_id) {
  Film film;
  film.sample_id = sample_id;
  film.caption = item.caption;
  film.source = fmt::format("list:{}", index);
  film.video = find_video(root, index, item.pose_text);
  film.per_latent = true;
  film.intrinsics =
      camera::intrinsics_matrices(camera::kDefaultFx, camera::kDefaultFy, .5, .5, 1)[0];
  if (item.pose_json.empty()) {
    const auto motions = camera::parse_dash_string(item.pose_text, camera::DashProgram::kWorldPlay);
    film.trajectory = camera::to_pose_string(motions);
    film.world_to_camera = camera::invert_poses(camera::integrate(motions));
  } else {
    const camera::Trajectory path = camera::read_trajectory_json(root / item.pose_json);
    film.world_to_camera = camera::invert_poses(path.camera_to_world);
    film.intrinsics = path.intrinsics[0];
  }
  return film;
}

}  // namespace

std::optional<fs::path> find_list(const fs::path& root) {
  const fs::path file = root / "preencode_input.json";
  return fs::exists(file) ? std::optional(file) : std::nullopt;
}

ImportReport import_list(const fs::path& list, const fs::path& folder,
                         const ImportOptions& options) {
  require(options.hold == 1, "hold = {}: the films of a list run at full speed; expected 1",
          options.hold);
  const std::vector<ListItem> items = read_list(list);
  const auto id = [](int64_t i) { return fmt::format("list-{:06d}", i); };
  const auto film = [&](int64_t i) {
    Film found = read_film(list.parent_path(), i, items[static_cast<size_t>(i)], id(i));
    const int64_t poses = found.world_to_camera.size(0);
    require(poses >= options.latent_frames,
            "the trajectory '{}' has {} poses, expected at least {}",
            items[static_cast<size_t>(i)].pose_text, poses, options.latent_frames);
    return found;
  };
  return import_films(static_cast<int64_t>(items.size()), folder, options, id, film);
}

}  // namespace minwm::data
