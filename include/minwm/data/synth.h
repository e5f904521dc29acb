#pragma once
// Data sets of procedural worlds: which worlds and paths, as a latent store or as a clip folder.
// Spec tiny-world 2.

#include <filesystem>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "minwm/comm/communicator.h"
#include "minwm/data/manifest.h"
#include "minwm/data/world.h"
#include "minwm/models/codec/codec.h"

namespace minwm::data {

/// Worlds first_seed … first_seed + worlds - 1, each along paths_per_world random trajectories.
/// Sample i is path i % paths_per_world of world first_seed + i / paths_per_world.
struct SynthOptions {
  int64_t worlds = 1536;
  int64_t first_seed = 1;
  int64_t paths_per_world = 2;
  int64_t latent_frames = 12;  ///< T; a clip has 1 + 4 (T - 1) video frames
  WorldStyle style;

  int64_t samples() const { return worlds * paths_per_world; }
  /// "world-000123-0": seed and path; stable, whatever else is in the set.
  std::string sample_id(int64_t sample) const;
};

/// Frames per second of the videos, as the reference's clips.
inline constexpr double kSynthFps = 16;

/// Everything about a clip but its pixels.
ManifestEntry synth_entry(const SynthOptions& options, const World& world, int64_t sample);
/// The clip's frames: uint8 [1 + 4 (T - 1), H, W, 3], one pose per frame between the latents'
/// poses.
at::Tensor render_trajectory(const World& world, const std::string& trajectory);

/// Renders into a latent store: every rank its share of the worlds; samples that are there already
/// are kept (latent_store.h). Text states are those of caption_embedding. Collective.
/// @param provenance  JSON (provenance.h).
/// @throws Error if the store was made with other options, or the size does not suit the codec.
void synth_store(const SynthOptions& options, models::Codec& codec,
                 const std::filesystem::path& store, const std::string& provenance,
                 std::shared_ptr<comm::Communicator> communicator);

/// Renders into a clip folder (manifest.h); videos that are there already are kept, the manifest is
/// written last. Collective. @throws Error if the folder was made with other options.
void synth_folder(const SynthOptions& options, const std::filesystem::path& folder,
                  const std::string& provenance, std::shared_ptr<comm::Communicator> communicator);

}  // namespace minwm::data
