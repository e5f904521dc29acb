#pragma once
// What every importer shares: from the cameras of a film's frames to a clip of the folder.

#include <filesystem>
#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

#include "minwm/data/import.h"
#include "minwm/data/manifest.h"

namespace minwm::data {

/// A film and its cameras, one per file frame or one per latent frame.
struct Film {
  std::string sample_id, caption, trajectory, source;
  std::filesystem::path video;
  at::Tensor world_to_camera;  ///< [N, 4, 4]
  at::Tensor intrinsics;       ///< [3, 3] normalised
  bool per_latent = false;     ///< cameras of latent frames (commanded paths), not of file frames
};

/// Chooses the frames, rescales, and checks video and cameras; the entry's video is
/// videos/<id>.mp4. @throws Error with the reason.
ManifestEntry make_entry(const Film& film, const ImportOptions& options);

/// Imports one film after the other: copies its video into FOLDER; an Error of `film(i)`, of its
/// video or of its cameras refuses that one. Then writes the manifest.
ImportReport import_films(int64_t count, const std::filesystem::path& folder,
                          const ImportOptions& options,
                          const std::function<std::string(int64_t)>& id,
                          const std::function<Film(int64_t)>& film);

}  // namespace minwm::data
