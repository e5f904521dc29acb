#include "minwm/data/manifest.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "camera_checks.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/data/video.h"

namespace minwm::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "minwm-clips";
constexpr int kVersion = 1;

/// Poses are kept as the upper three rows: 12 numbers, row major, like RealEstate10K.
Json poses_to_json(const at::Tensor& world_to_camera) {
  const at::Tensor rows =
      world_to_camera.to(at::kDouble).slice(1, 0, 3).reshape({-1, 12}).contiguous();
  Json out = Json::array();
  for (int64_t t = 0; t < rows.size(0); ++t) {
    const double* row = rows.const_data_ptr<double>() + t * 12;
    out.push_back(std::vector<double>(row, row + 12));
  }
  return out;
}

at::Tensor poses_from_json(const std::vector<std::vector<double>>& rows, const std::string& where) {
  const auto n = static_cast<int64_t>(rows.size());
  at::Tensor out = at::eye(4, at::kDouble).repeat({n, 1, 1});
  for (int64_t t = 0; t < n; ++t) {
    const auto& row = rows[static_cast<size_t>(t)];
    require(row.size() == 12,
            "{}: world_to_camera[{}] has {} numbers, expected 12 (3x4, row major)", where, t,
            row.size());
    out[t].slice(0, 0, 3).copy_(at::tensor(row, at::kDouble).view({3, 4}));
  }
  return out;
}

Json to_json(const ManifestEntry& entry) {
  const at::Tensor k = entry.intrinsics.to(at::kDouble);
  const auto element = [&](int64_t row, int64_t column) { return k[row][column].item<double>(); };
  Json out = {
      {"id", entry.sample_id},          {"video", entry.video},   {"caption", entry.caption},
      {"trajectory", entry.trajectory}, {"source", entry.source}, {"width", entry.width},
      {"height", entry.height},         {"fps", entry.fps},       {"frames", entry.frames}};
  if (!entry.frame_indices.empty()) {
    out["frame_indices"] = entry.frame_indices;
  }
  out["scale"] = entry.scale;
  out["intrinsics"] = {element(0, 0), element(1, 1), element(0, 2), element(1, 2)};
  out["world_to_camera"] = poses_to_json(entry.world_to_camera);
  return out;
}

/// Takes the fields out of one clip's object and complains about the rest.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    require(object.is_object(), "{}: expected an object", where_);
  }
  template <class T>
  T take(const char* name) {
    require(object_.contains(name), "{}: field '{}' is missing", where_, name);
    seen_.insert(name);
    try {
      return object_.at(name).get<T>();
    } catch (const nlohmann::json::exception& error) {
      fail("{}: field '{}' has the wrong type ({})", where_, name, error.what());
    }
  }
  bool has(const char* name) const { return object_.contains(name); }
  void finish() const {
    for (const auto& [name, value] : object_.items()) {
      require(seen_.contains(name), "{}: unknown field '{}'", where_, name);
    }
  }

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> seen_;
};

ManifestEntry from_json(const Json& object, const std::string& where) {
  Fields fields(object, where);
  ManifestEntry entry;
  entry.sample_id = fields.take<std::string>("id");
  entry.video = fields.take<std::string>("video");
  entry.caption = fields.take<std::string>("caption");
  entry.trajectory = fields.take<std::string>("trajectory");
  entry.source = fields.take<std::string>("source");
  entry.width = fields.take<int64_t>("width");
  entry.height = fields.take<int64_t>("height");
  entry.fps = fields.take<double>("fps");
  entry.frames = fields.take<int64_t>("frames");
  if (fields.has("frame_indices")) {
    entry.frame_indices = fields.take<std::vector<int64_t>>("frame_indices");
  }
  entry.scale = fields.take<double>("scale");
  const auto k = fields.take<std::vector<double>>("intrinsics");
  require(k.size() == 4, "{}: intrinsics has {} numbers, expected fx fy cx cy", where, k.size());
  entry.intrinsics =
      at::tensor({k[0], 0.0, k[2], 0.0, k[1], k[3], 0.0, 0.0, 1.0}, at::kDouble).view({3, 3});
  entry.world_to_camera =
      poses_from_json(fields.take<std::vector<std::vector<double>>>("world_to_camera"), where);
  fields.finish();
  return entry;
}

void require_valid_sizes(const ManifestEntry& entry, const std::string& where) {
  require(!entry.sample_id.empty() && entry.sample_id.find('/') == std::string::npos,
          "{}: the id must be a file name without slashes", where);
  require(!entry.video.empty(), "{}: the video's path is empty", where);
  require(entry.width > 0 && entry.height > 0, "{}: video size {}x{}", where, entry.width,
          entry.height);
  require(std::isfinite(entry.fps) && entry.fps > 0, "{}: {} frames per second", where, entry.fps);
  require(std::isfinite(entry.scale) && entry.scale > 0, "{}: scale {}", where, entry.scale);
  require(entry.frames >= 1 && entry.frames % 4 == 1,
          "{}: {} frames, expected 1 + 4 m (one latent frame for four video frames)", where,
          entry.frames);
  const auto& indices = entry.frame_indices;
  require(indices.empty() || static_cast<int64_t>(indices.size()) == entry.frames,
          "{}: {} frame_indices for {} frames", where, indices.size(), entry.frames);
  require(std::adjacent_find(indices.begin(), indices.end(), std::greater<>()) == indices.end() &&
              (indices.empty() || indices.front() >= 0),
          "{}: frame_indices must be 0 or more and never decrease", where);
}

}  // namespace

void require_valid(const ManifestEntry& entry) {
  const std::string where = fmt::format("clip '{}'", entry.sample_id);
  require_valid_sizes(entry, where);
  require(entry.world_to_camera.defined() && entry.world_to_camera.dim() == 3 &&
              entry.world_to_camera.size(0) == entry.latent_frames(),
          "{}: {} cameras for {} frames, expected {} (one per latent frame)", where,
          entry.world_to_camera.defined() ? entry.world_to_camera.size(0) : 0, entry.frames,
          entry.latent_frames());
  require_valid_cameras(entry.world_to_camera, entry.intrinsics, where);
}

std::filesystem::path manifest_path(const std::filesystem::path& folder) {
  return folder / "clips.json";
}

std::vector<ManifestEntry> read_manifest(const std::filesystem::path& folder) {
  const auto path = manifest_path(folder);
  require(std::filesystem::exists(path),
          "{}: no clip folder here (clips.json is missing; minwm data synth or import writes it)",
          folder.string());
  Json document;
  try {
    document = Json::parse(read_file(path));
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not JSON: {}", path.string(), error.what());
  }
  require(document.is_object() && document.value("format", "") == kFormat,
          "{}: not a clip manifest (format '{}' expected)", path.string(), kFormat);
  require(document.contains("version") && document["version"] == kVersion,
          "{}: manifest version {}, this program reads {}", path.string(),
          document.contains("version") ? document["version"].dump() : "none", kVersion);
  require(document.contains("clips") && document["clips"].is_array(),
          "{}: field 'clips' is missing", path.string());
  std::vector<ManifestEntry> entries;
  std::set<std::string> ids;
  for (const auto& object : document["clips"]) {
    const std::string where = fmt::format("{}: clip {}", path.string(), entries.size());
    entries.push_back(from_json(object, where));
    require(ids.insert(entries.back().sample_id).second, "{}: the id '{}' occurs twice", where,
            entries.back().sample_id);
    try {
      require_valid(entries.back());
    } catch (const Error& error) {
      fail("{}: {}", path.string(), error.what());
    }
  }
  return entries;
}

void write_manifest(const std::filesystem::path& folder, std::vector<ManifestEntry> entries) {
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.sample_id < b.sample_id; });
  // One clip per line: readable, and small in a diff.
  std::string text =
      fmt::format("{{\"format\": \"{}\", \"version\": {}, \"clips\": [", kFormat, kVersion);
  for (size_t i = 0; i < entries.size(); ++i) {
    require_valid(entries[i]);
    require(i == 0 || entries[i].sample_id != entries[i - 1].sample_id,
            "{}: the id '{}' occurs twice", folder.string(), entries[i].sample_id);
    text += (i == 0 ? "\n" : ",\n") + to_json(entries[i]).dump();
  }
  atomic_write(manifest_path(folder), text + "\n]}\n");
}

at::Tensor read_clip_frames(const std::filesystem::path& folder, const ManifestEntry& entry) {
  const auto path = folder / entry.video;  // an absolute video path replaces the folder
  const auto& indices = entry.frame_indices;
  const int64_t needed = indices.empty() ? entry.frames : indices.back() + 1;
  const at::Tensor frames = read_video(path, needed).frames;
  require(frames.size(0) >= needed, "{}: {} frames, clip '{}' needs {}", path.string(),
          frames.size(0), entry.sample_id, needed);
  require(frames.size(1) == entry.height && frames.size(2) == entry.width,
          "{}: {}x{} pixels, clip '{}' says {}x{}", path.string(), frames.size(2), frames.size(1),
          entry.sample_id, entry.width, entry.height);
  return indices.empty() ? frames.slice(0, 0, entry.frames)
                         : frames.index_select(0, at::tensor(indices, at::kLong));
}

}  // namespace minwm::data
