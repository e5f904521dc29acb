#pragma once
// Does a world hold together when it is streamed far beyond the length it was trained on? Picture
// statistics chunk by chunk, beside those of the exact video through the codec.

#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "minwm/eval/commanded.h"

namespace minwm::eval {

/// A path of any length that stays near its start: random training paths of `piece` - 1 motions,
/// each walked there and back.
/// @throws Error as command_clip does, or if piece < 2.
Commanded there_and_back(uint64_t world_seed, const data::WorldStyle& style, int64_t latent_frames,
                         int64_t piece);

/// One chunk of a video, or the mean over several videos.
struct ChunkLook {
  double brightness = 0,
         contrast = 0;   ///< mean and standard deviation of the grey picture, 0 … 255
  double sharpness = 0;  ///< mean gradient (video_metrics.h)
  double tile_grid = 0;  ///< 1 = no grid
  double psnr = 0;       ///< dB against the exact video
};

/// Per chunk of `chunk_frames` latents, the latent-time frames alone: [ceil(T / chunk_frames)].
/// @param frames, truth  uint8 [T, H, W, 3], one per latent frame.
std::vector<ChunkLook> chunk_looks(const at::Tensor& frames, const at::Tensor& truth,
                                   int64_t chunk_frames, int64_t token_pixels);

/// A long stream of some worlds.
struct Drift {
  int64_t latents = 0, trained_latents = 0, chunk_frames = 0;
  int64_t worlds = 0;
  int64_t not_finite = 0;               ///< values that were NaN or infinite
  double seconds = 0;                   ///< of the stream, decoding included
  std::vector<ChunkLook> model, truth;  ///< per chunk, means over the worlds
  bool measured() const { return !model.empty(); }
};

/// Adds the looks of one world to a mean over `worlds` of them.
void add_looks(std::vector<ChunkLook>& mean, const std::vector<ChunkLook>& one, int64_t worlds);

/// One number of the last quarter of the stream relative to the first chunk, the truth's own change
/// taken out: (model / truth at the end) / (model / truth at the start); 1 = no drift.
struct DriftSummary {
  double brightness, contrast, sharpness, tile_grid;
};
DriftSummary summarize(const Drift& drift);

nlohmann::ordered_json to_json(const Drift& drift);
/// SVG plots with captions: brightness, contrast, sharpness, grid over the latents.
std::vector<std::pair<std::string, std::string>> drift_figures(const Drift& drift);
/// What it says, in one paragraph.
std::string in_words(const Drift& drift);

}  // namespace minwm::eval
