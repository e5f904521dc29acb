#include "import_clips.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/progress.h"
#include "minwm/data/video.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFramesPerLatent = 4;
constexpr double kNoStep = 1e-4;  ///< world units; a still camera has no scale

void require_valid_options(const ImportOptions& options) {
  require(options.hold == 1 || options.hold == 2 || options.hold == 4,
          "hold = {}: expected 1, 2 or 4, so that every latent frame ends on a frame of the file",
          options.hold);
  require(options.latent_frames >= 0, "latent_frames = {}: expected 0 (all) or more",
          options.latent_frames);
}

/// Poses as exactly rigid as doubles allow, the first the identity.
std::vector<camera::Rigid> aligned(const at::Tensor& world_to_camera) {
  auto poses = camera::to_rigid(camera::align_to_first(world_to_camera));
  for (camera::Rigid& pose : poses) {
    pose.rotation = camera::to_rotation(camera::to_quaternion(pose.rotation));
  }
  return poses;
}

/// Median distance between consecutive cameras' centres.
double median_step(const std::vector<camera::Rigid>& poses) {
  std::vector<double> steps;
  for (size_t k = 1; k < poses.size(); ++k) {
    const auto& v = (poses[k] * camera::inverse(poses[k - 1])).translation;
    steps.push_back(std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]));
  }
  if (steps.empty()) {
    return 0;
  }
  std::sort(steps.begin(), steps.end());
  const size_t middle = steps.size() / 2;
  return steps.size() % 2 == 1 ? steps[middle] : (steps[middle - 1] + steps[middle]) / 2;
}

void rescale(std::vector<camera::Rigid>& poses, ManifestEntry& entry) {
  const double step = median_step(poses);
  if (step < kNoStep) {
    return;
  }
  entry.scale = camera::kStep / step;
  for (camera::Rigid& pose : poses) {
    for (double& value : pose.translation) {
      value *= entry.scale;
    }
  }
}

}  // namespace

ManifestEntry make_entry(const Film& film, const ImportOptions& options) {
  const int64_t cameras = film.world_to_camera.size(0), hold = options.hold;
  // Latent k ends on clip frame 4 k, which shows file frame 4 k / hold.
  const int64_t file_frames_per_latent = kFramesPerLatent / hold;
  const int64_t known = film.per_latent ? cameras : 1 + (cameras - 1) / file_frames_per_latent;
  const int64_t latents =
      options.latent_frames > 0 ? std::min(known, options.latent_frames) : known;
  const int64_t stride = film.per_latent ? 1 : file_frames_per_latent;
  const int64_t last_frame = (latents - 1) * file_frames_per_latent;
  const int64_t needed = film.per_latent ? last_frame + 1 : cameras;
  const Video video = read_video(film.video, film.per_latent ? needed : needed + 1);
  require(film.per_latent ? video.frames.size(0) >= needed : video.frames.size(0) == needed,
          "{}: {} {} frames, its cameras need {}", film.video.string(),
          video.frames.size(0) > needed ? "more than" : "only",
          std::min(video.frames.size(0), needed), needed);

  ManifestEntry entry;
  entry.sample_id = film.sample_id;
  entry.video = fmt::format("videos/{}.mp4", film.sample_id);
  entry.caption = film.caption;
  entry.trajectory = film.trajectory;
  entry.source = film.source;
  entry.height = video.frames.size(1);
  entry.width = video.frames.size(2);
  entry.fps = video.fps;
  entry.frames = 1 + kFramesPerLatent * (latents - 1);
  for (int64_t f = 0; hold > 1 && f < entry.frames; ++f) {
    entry.frame_indices.push_back((f + hold - 1) / hold);
  }
  auto poses = aligned(film.world_to_camera.slice(0, 0, (latents - 1) * stride + 1, stride));
  if (options.rescale) {
    rescale(poses, entry);
  }
  entry.world_to_camera = camera::to_matrices(poses);
  entry.intrinsics = film.intrinsics.to(at::kDouble);
  require_valid(entry);
  return entry;
}

ImportReport import_films(int64_t count, const fs::path& folder, const ImportOptions& options,
                          const std::function<std::string(int64_t)>& id,
                          const std::function<Film(int64_t)>& film) {
  require_valid_options(options);
  ImportReport report;
  std::vector<ManifestEntry> entries;
  Progress progress("import", count, "clips");
  for (int64_t i = 0; i < count; ++i) {
    try {
      const Film found = film(i);
      ManifestEntry entry = make_entry(found, options);
      PendingFile copy(folder / entry.video);
      fs::copy_file(found.video, copy.path());
      copy.publish();
      entries.push_back(std::move(entry));
    } catch (const Error& error) {
      report.refused.push_back({id(i), error.what()});
      spdlog::warn("clip '{}' is refused: {}", id(i), error.what());
    }
    progress.update(i + 1);
  }
  report.imported = static_cast<int64_t>(entries.size());
  write_manifest(folder, std::move(entries));
  return report;
}

}  // namespace minwm::data
