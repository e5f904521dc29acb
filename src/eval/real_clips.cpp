#include "minwm/eval/real_clips.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/data/encode.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/manifest.h"
#include "minwm/eval/video_metrics.h"

namespace minwm::eval {
namespace {

std::filesystem::path clip_folder(const RealClipOptions& options) {
  if (!options.folder.empty()) {
    return options.folder;
  }
  const std::filesystem::path store = options.store;
  const auto folder = store.parent_path() / (store.stem().string() + "-clips");
  require(std::filesystem::exists(data::manifest_path(folder)),
          "{}: the clips of this store are not in {}; name their folder with --real_clips",
          options.store, folder.string());
  return folder;
}

const data::ManifestEntry& find_entry(const std::vector<data::ManifestEntry>& entries,
                                      const std::string& id, const std::string& where) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& entry) { return entry.sample_id == id; });
  require(found != entries.end(), "{}: the clip folder holds no sample '{}'", where, id);
  return *found;
}

// How the store's clips were brought to its size: as its provenance says, else as `minwm data
// encode` does by itself.
data::Fit recorded_fit(const data::LatentStore* store) {
  const auto about =
      nlohmann::json::parse(store != nullptr ? store->layout().provenance : "{}", nullptr, false);
  const nlohmann::json::json_pointer fit("/options/fit");
  const bool stretched = about.is_object() && about.value(fit, "crop") == "stretch";
  return stretched ? data::Fit::kStretch : data::Fit::kCrop;
}

// uint8 [F, H, W, 3] of pixels [1, F, 3, H, W].
at::Tensor to_frames(const at::Tensor& pixels) {
  return models::to_uint8(pixels[0]).permute({0, 2, 3, 1}).contiguous();
}

RealClip compare(const data::ManifestEntry& entry, const at::Tensor& pixels,
                 const at::Tensor& latents, models::Codec& codec, bool stored) {
  const at::Tensor source = to_frames(pixels), decoded = to_frames(codec.decode(latents));
  require(source.sizes() == decoded.sizes(), "{}: the decoded video has {} frames, its source {}",
          entry.sample_id, decoded.size(0), source.size(0));
  RealClip clip;
  clip.name = entry.sample_id;
  clip.psnr = mean_psnr(source, decoded);
  clip.sheet.title = entry.sample_id;
  clip.sheet.note = fmt::format("{} at {}x{} pixels; PSNR {:.1f} dB; {}", entry.source,
                                source.size(2), source.size(1), clip.psnr,
                                stored ? "the stored latents decoded" : "encoded and decoded");
  clip.sheet.rows = {{"source", source}, {"through the codec", decoded}};
  return clip;
}

}  // namespace

std::vector<RealClip> reconstruct_real_clips(const RealClipOptions& options, models::Codec& codec,
                                             int64_t height, int64_t width) {
  std::vector<RealClip> clips;
  if (options.store.empty() && options.folder.empty()) {
    return clips;
  }
  std::unique_ptr<data::LatentStore> store;
  if (!options.store.empty()) {
    store = std::make_unique<data::LatentStore>(options.store);
    const auto& layout = store->layout();
    require(layout.codec == codec.name(), "{}: holds latents of codec {}, the checkpoint's is {}",
            options.store, layout.codec, codec.name());
    require(layout.pixel_height == height && layout.pixel_width == width,
            "{}: holds clips of {}x{} pixels, the checkpoint makes {}x{}", options.store,
            layout.pixel_width, layout.pixel_height, width, height);
  }
  const data::EncodeOptions encode{width, height, recorded_fit(store.get()), 0};
  const auto folder = clip_folder(options);
  const auto entries = data::read_manifest(folder);
  const int64_t available = store ? store->size() : static_cast<int64_t>(entries.size());
  for (int64_t i = 0; i < std::min(options.count, available); ++i) {
    const auto& entry = store ? find_entry(entries, store->sample_id(i), folder.string())
                              : entries[static_cast<size_t>(i)];
    at::Tensor frames = data::read_clip_frames(folder, entry);
    if (store) {  // longer clips were cut
      frames = frames.slice(0, 0, models::pixel_frames(store->layout().frames));
    }
    const at::Tensor pixels = data::fit_frames(frames, encode).unsqueeze(0);
    const at::Tensor latents = store ? store->read(i).latents.unsqueeze(0) : codec.encode(pixels);
    clips.push_back(compare(entry, pixels, latents, codec, store != nullptr));
  }
  return clips;
}

}  // namespace minwm::eval
