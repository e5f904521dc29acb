#include "minwm/data/encode.h"

#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include "minwm/camera/poses.h"
#include "minwm/core/error.h"
#include "minwm/core/progress.h"
#include "minwm/data/provenance.h"
#include "minwm/data/video.h"
#include "minwm/data/world.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

/// [out, in]: each output pixel is the mean of the input pixels its square covers.
at::Tensor area_weights(int64_t in, int64_t out) {
  at::Tensor weights = at::zeros({out, in}, at::kFloat);
  float* const row = weights.mutable_data_ptr<float>();
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  for (int64_t o = 0; o < out; ++o) {
    const double begin = static_cast<double>(o) * ratio, end = begin + ratio;
    for (int64_t i = 0; i < in; ++i) {
      const double covered = std::min<double>(end, static_cast<double>(i + 1)) -
                             std::max<double>(begin, static_cast<double>(i));
      row[o * in + i] = static_cast<float>(std::max(covered, 0.0) / ratio);
    }
  }
  return weights;
}

/// float32 [F, 3, H, W] → [F, 3, height, width], height <= H, width <= W.
at::Tensor shrink_by_area(const at::Tensor& pixels, int64_t height, int64_t width) {
  at::Tensor out = at::matmul(pixels, area_weights(pixels.size(3), width).t());
  return at::matmul(area_weights(pixels.size(2), height), out);
}

/// T of the store: as asked, or what most clips have (of equal votes the longer).
int64_t choose_latent_frames(const std::vector<ManifestEntry>& entries, int64_t asked) {
  std::map<int64_t, int64_t> votes;
  for (const ManifestEntry& entry : entries) {
    ++votes[entry.latent_frames()];
  }
  const auto most = std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) {
    return a.second <= b.second;
  });
  return asked > 0 ? asked : most->first;
}

/// The first T latents' worth of a clip. @throws Error if it is shorter.
ManifestEntry cut(ManifestEntry entry, int64_t latent_frames) {
  require(entry.latent_frames() >= latent_frames, "{} latent frames, the store takes {}",
          entry.latent_frames(), latent_frames);
  entry.frames = models::pixel_frames(latent_frames);
  entry.frame_indices.resize(entry.frame_indices.empty() ? 0 : static_cast<size_t>(entry.frames));
  entry.world_to_camera = entry.world_to_camera.narrow(0, 0, latent_frames);
  return entry;
}

Clip encode_clip(const fs::path& folder, const ManifestEntry& entry, models::Codec& codec,
                 const EncodeOptions& options) {
  const at::Tensor pixels = fit_frames(read_clip_frames(folder, entry), options);
  return to_clip(entry, codec.encode(pixels.unsqueeze(0))[0], fit_intrinsics(entry, options));
}

}  // namespace

Crop centre_crop(int64_t width, int64_t height, int64_t target_width, int64_t target_height) {
  const double shape = static_cast<double>(target_width) / static_cast<double>(target_height);
  const auto size = [](double wanted, int64_t available) {
    auto pixels = std::clamp<int64_t>(std::llround(wanted), 1, available);
    // The same parity as the picture: then the centre stays the centre.
    return (available - pixels) % 2 == 0 ? pixels : pixels > 1 ? pixels - 1 : pixels + 1;
  };
  const int64_t w = size(static_cast<double>(height) * shape, width);
  const int64_t h = size(static_cast<double>(width) / shape, height);
  return {(width - w) / 2, (height - h) / 2, w, h};
}

at::Tensor fit_frames(const at::Tensor& frames, const EncodeOptions& options) {
  if (options.fit == Fit::kStretch) {
    return to_pixels(frames, options.height, options.width);
  }
  const Crop crop = centre_crop(frames.size(2), frames.size(1), options.width, options.height);
  const at::Tensor middle =
      frames.narrow(1, crop.top, crop.height).narrow(2, crop.left, crop.width);
  if (crop.height < options.height || crop.width < options.width) {
    return to_pixels(middle.contiguous(), options.height, options.width);  // nothing to average
  }
  const at::Tensor pixels = to_pixels(middle.contiguous(), crop.height, crop.width);
  return crop.height == options.height && crop.width == options.width
             ? pixels
             : shrink_by_area(pixels, options.height, options.width);
}

at::Tensor fit_intrinsics(const ManifestEntry& entry, const EncodeOptions& options) {
  at::Tensor intrinsics = entry.intrinsics.to(at::kDouble).unsqueeze(0);
  if (options.fit == Fit::kCrop) {
    const Crop crop = centre_crop(entry.width, entry.height, options.width, options.height);
    intrinsics = camera::crop_intrinsics(
        intrinsics, static_cast<double>(entry.width), static_cast<double>(entry.height),
        static_cast<double>(crop.width), static_cast<double>(crop.height));
  }
  return camera::normalize_intrinsics(intrinsics)[0];
}

StoreLayout store_layout(const models::Codec& codec, int64_t frames, int64_t pixel_height,
                         int64_t pixel_width, const std::string& provenance) {
  const int64_t factor = codec.spatial_factor();
  require(pixel_height > 0 && pixel_width > 0 && pixel_height % factor == 0 &&
              pixel_width % factor == 0,
          "{}x{} pixels: codec {} needs multiples of {}", pixel_width, pixel_height, codec.name(),
          factor);
  const at::Tensor text = caption_embedding("");
  return {.frames = frames,
          .channels = codec.latent_channels(),
          .height = pixel_height / factor,
          .width = pixel_width / factor,
          .text_tokens = text.size(0),
          .text_dim = text.size(1),
          .pixel_height = pixel_height,
          .pixel_width = pixel_width,
          .codec = codec.name(),
          .provenance = provenance};
}

Clip to_clip(const ManifestEntry& entry, const at::Tensor& latents, const at::Tensor& intrinsics) {
  return {.sample_id = entry.sample_id,
          .caption = entry.caption,
          .trajectory = entry.trajectory,
          .source = entry.source,
          .latents = latents,
          .world_to_camera = entry.world_to_camera.to(at::kFloat),
          .intrinsics = intrinsics.to(at::kFloat),
          .text = caption_embedding(entry.caption)};
}

void encode_folder(const fs::path& folder, models::Codec& codec, const fs::path& store,
                   const EncodeOptions& options, const std::string& provenance,
                   std::shared_ptr<comm::Communicator> communicator) {
  const std::vector<ManifestEntry> entries = read_manifest(folder);
  require(!entries.empty(), "{}: the clip folder holds no clips", folder.string());
  require(options.latent_frames >= 0, "latent_frames = {}: expected 0 (as the clips) or more",
          options.latent_frames);
  const int64_t frames = choose_latent_frames(entries, options.latent_frames);
  const StoreLayout layout = store_layout(codec, frames, options.height, options.width, provenance);
  require_same_provenance(store, provenance);
  communicator->barrier("check store");

  const auto clips = static_cast<int64_t>(entries.size());
  LatentStoreWriter writer(store, layout, clips, communicator);
  Progress progress("encode", clips, "clips", communicator->rank() == 0);
  for (int64_t i = communicator->rank(); i < clips; i += communicator->size()) {
    const ManifestEntry& entry = entries[static_cast<size_t>(i)];
    if (!writer.complete(i, entry.sample_id)) {
      try {
        writer.write(i, encode_clip(folder, cut(entry, frames), codec, options));
      } catch (const Error& error) {
        // Throws in its turn if it was the store that could not be written.
        writer.mark_failed(i, entry.sample_id, error.what());
        spdlog::warn("clip '{}' is left out: {}", entry.sample_id, error.what());
      }
    }
    progress.update(std::min(i + communicator->size(), clips));
  }
  writer.close();
}

}  // namespace minwm::data
