#include <algorithm>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "import_clips.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/re10k.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

/// The names of the pose files without their extension, sorted.
std::vector<std::string> clip_ids(const fs::path& source) {
  std::vector<std::string> ids;
  for (const auto& file : fs::directory_iterator(source / "poses")) {
    if (file.path().extension() == ".txt") {
      ids.push_back(file.path().stem());
    }
  }
  std::sort(ids.begin(), ids.end());
  require(!ids.empty(), "{}: no pose file (*.txt)", (source / "poses").string());
  return ids;
}

std::vector<std::string> read_captions(const fs::path& file, size_t clips) {
  std::vector<std::string> captions;
  try {
    captions = nlohmann::json::parse(read_file(file)).at("prompts").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception& error) {
    fail("{}: expected {{\"prompts\": [texts]}}: {}", file.string(), error.what());
  }
  require(captions.size() == clips, "{}: {} captions for {} pose files", file.string(),
          captions.size(), clips);
  return captions;
}

}  // namespace

std::optional<fs::path> find_re10k(const fs::path& root) {
  for (const fs::path& folder : {root / "re10k", root}) {
    if (fs::is_directory(folder / "poses")) {
      return folder;
    }
  }
  return std::nullopt;
}

ImportReport import_re10k(const fs::path& source, const fs::path& folder,
                          const ImportOptions& options) {
  const std::vector<std::string> ids = clip_ids(source);
  const std::vector<std::string> captions = read_captions(source / "captions.json", ids.size());
  const auto film = [&](int64_t i) {
    const std::string& id = ids[static_cast<size_t>(i)];
    const camera::Re10kClip clip = camera::read_re10k(source / "poses" / (id + ".txt"));
    // Of the first line, and as given although the sample films' pixels are not square: they were
    // stretched, and the epipolar error of followed corners is 0.20 pixels so, 0.76 if the films
    // were taken for crops.
    const double* const k = clip.intrinsics.const_data_ptr<double>();
    return Film{.sample_id = "re10k-" + id,
                .caption = captions[static_cast<size_t>(i)],
                .trajectory = "",
                .source = "re10k:" + id,
                .video = source / "videos" / (id + ".mp4"),
                .world_to_camera = clip.world_to_camera,
                .intrinsics = camera::intrinsics_matrices(k[0], k[1], k[2], k[3], 1)[0]};
  };
  return import_films(
      static_cast<int64_t>(ids.size()), folder, options,
      [&](int64_t i) { return "re10k-" + ids[static_cast<size_t>(i)]; }, film);
}

}  // namespace minwm::data
