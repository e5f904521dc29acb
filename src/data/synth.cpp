#include "minwm/data/synth.h"

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/core/error.h"
#include "minwm/core/progress.h"
#include "minwm/data/encode.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/provenance.h"
#include "minwm/data/video.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

void require_valid_options(const SynthOptions& options) {
  require(options.worlds >= 1, "worlds = {}: expected at least 1", options.worlds);
  require(options.first_seed >= 0, "first_seed = {}: expected 0 or more", options.first_seed);
  require(options.paths_per_world >= 1, "paths_per_world = {}: expected at least 1",
          options.paths_per_world);
  require(options.latent_frames >= 2, "latent_frames = {}: expected at least 2 (one step)",
          options.latent_frames);
  const WorldStyle& style = options.style;
  require(style.width >= 2 && style.height >= 2 && style.width <= 4096 && style.height <= 4096,
          "{}x{} pixels: expected 2 to 4096", style.width, style.height);
  require(style.samples >= 1 && style.samples <= 8, "samples = {}: expected 1 to 8 per pixel side",
          style.samples);
}

std::shared_ptr<const World> world_of(const SynthOptions& options, int64_t sample) {
  const int64_t seed = options.first_seed + sample / options.paths_per_world;
  return make_world(static_cast<uint64_t>(seed), options.style);
}

/// Calls `make(world, sample)` for this rank's samples that are not `done(sample)`.
template <class Done, class Make>
void for_each_sample(const SynthOptions& options, comm::Communicator& communicator,
                     const Done& done, const Make& make) {
  Progress progress("render", options.samples(), "clips", communicator.rank() == 0);
  for (int64_t w = communicator.rank(); w < options.worlds; w += communicator.size()) {
    std::shared_ptr<const World> world;
    for (int64_t path = 0; path < options.paths_per_world; ++path) {
      const int64_t sample = w * options.paths_per_world + path;
      if (!done(sample)) {
        world = world ? world : world_of(options, sample);
        make(*world, sample);
      }
    }
    progress.update(
        std::min((w + communicator.size()) * options.paths_per_world, options.samples()));
  }
}

}  // namespace

std::string SynthOptions::sample_id(int64_t sample) const {
  return fmt::format("world-{:06d}-{}", first_seed + sample / paths_per_world,
                     sample % paths_per_world);
}

ManifestEntry synth_entry(const SynthOptions& options, const World& world, int64_t sample) {
  const int64_t seed = options.first_seed + sample / options.paths_per_world;
  const auto motions = camera::parse_pose_string(random_trajectory(
      static_cast<uint64_t>(seed), sample % options.paths_per_world, options.latent_frames - 1));
  const WorldStyle& style = options.style;
  ManifestEntry entry;
  entry.sample_id = options.sample_id(sample);
  entry.video = fmt::format("videos/{}.mp4", entry.sample_id);
  entry.caption = caption(world);
  entry.trajectory = camera::to_pose_string(motions);
  entry.source = fmt::format("world:{}", seed);
  entry.width = style.width;
  entry.height = style.height;
  entry.fps = kSynthFps;
  entry.frames = models::pixel_frames(options.latent_frames);
  entry.world_to_camera = camera::invert_poses(camera::integrate(motions));
  const double fy = style.fx * static_cast<double>(style.width) / static_cast<double>(style.height);
  entry.intrinsics = camera::intrinsics_matrices(style.fx, fy, .5, .5, 1)[0];
  return entry;
}

at::Tensor render_trajectory(const World& world, const std::string& trajectory) {
  const at::Tensor latents = camera::integrate(camera::parse_pose_string(trajectory));
  return render(world, interpolate_latent_poses(latents)).pixels;
}

void synth_store(const SynthOptions& options, models::Codec& codec, const fs::path& store,
                 const std::string& provenance, std::shared_ptr<comm::Communicator> communicator) {
  require_valid_options(options);
  const int64_t width = options.style.width, height = options.style.height;
  const StoreLayout layout = store_layout(codec, options.latent_frames, height, width, provenance);
  require_same_provenance(store, provenance);
  communicator->barrier("check store");
  LatentStoreWriter writer(store, layout, options.samples(), communicator);
  for_each_sample(
      options, *communicator,
      [&](int64_t sample) { return writer.complete(sample, options.sample_id(sample)); },
      [&](const World& world, int64_t sample) {
        const ManifestEntry entry = synth_entry(options, world, sample);
        const at::Tensor frames = render_trajectory(world, entry.trajectory);
        const at::Tensor latents = codec.encode(to_pixels(frames, height, width).unsqueeze(0))[0];
        writer.write(sample, to_clip(entry, latents, entry.intrinsics));
      });
  writer.close();
}

void synth_folder(const SynthOptions& options, const fs::path& folder,
                  const std::string& provenance, std::shared_ptr<comm::Communicator> communicator) {
  require_valid_options(options);
  require(options.style.width % 2 == 0 && options.style.height % 2 == 0,
          "{}x{} pixels: an mp4 file needs even sizes", options.style.width, options.style.height);
  if (communicator->rank() == 0) {
    claim_folder(folder, provenance);
  }
  communicator->barrier("claim clip folder");
  for_each_sample(
      options, *communicator,
      [&](int64_t sample) {
        return fs::exists(folder / "videos" / (options.sample_id(sample) + ".mp4"));
      },
      [&](const World& world, int64_t sample) {
        const ManifestEntry entry = synth_entry(options, world, sample);
        write_video(folder / entry.video, render_trajectory(world, entry.trajectory), entry.fps);
      });
  communicator->barrier("videos are written");
  if (communicator->rank() == 0) {
    std::vector<ManifestEntry> entries;
    for (int64_t sample = 0; sample < options.samples(); ++sample) {
      entries.push_back(synth_entry(options, *world_of(options, sample), sample));
    }
    write_manifest(folder, std::move(entries));
  }
  communicator->barrier("manifest is written");
}

}  // namespace minwm::data
