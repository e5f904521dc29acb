#pragma once
// The clip folder: videos with one camera per latent frame, before they become latents. `minwm data
// synth` and `minwm data import` write it, `minwm data encode` reads it.
//
//   FOLDER/clips.json      {"format": "minwm-clips", "version": 1, "clips": [...]}
//   FOLDER/videos/<id>.mp4

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::data {

/// One clip of a clip folder.
struct ManifestEntry {
  std::string sample_id;  ///< unique in the folder, a file name without slashes
  std::string video;      ///< path relative to the folder, or absolute
  std::string caption;
  std::string trajectory;         ///< canonical pose string, or "" for other camera paths
  std::string source;             ///< "world:<seed>", "re10k:<id>", "list:<i>", …
  int64_t width = 0, height = 0;  ///< of the video file, pixels
  double fps = 0;
  int64_t frames = 0;  ///< F = 1 + 4 (T - 1) video frames of the clip
  /// F frames of the file, never decreasing: a frame may be held to bring a slow video to the frame
  /// rate of training. Empty = 0 … F - 1.
  std::vector<int64_t> frame_indices;
  double scale = 1;  ///< the source's translations were multiplied by this
  at::Tensor
      world_to_camera;    ///< [T, 4, 4] float64, of video frame 4k of the clip; first = identity
  at::Tensor intrinsics;  ///< [3, 3] float64, normalised (fx / width, fy / height, centre as known)

  int64_t latent_frames() const { return 1 + (frames - 1) / 4; }
};

/// What a clip must satisfy to be written or read (spec data-camera-eval 10.7): finite; F = 1 + 4
/// (T - 1); rotations orthonormal within 1e-4, first pose = identity; 0.1 < fx, fy < 5; a step of
/// one latent shorter than kLongestStep and turning less than kLargestTurn degrees.
/// @throws Error naming the sample, the frame and the value seen.
void require_valid(const ManifestEntry& entry);

inline constexpr double kLongestStep = 1.0;   ///< world units per latent frame
inline constexpr double kLargestTurn = 20.0;  ///< degrees per latent frame

/// FOLDER/clips.json.
std::filesystem::path manifest_path(const std::filesystem::path& folder);

/// Reads FOLDER/clips.json, in file order. @throws Error naming file, clip and field: absent, not
/// JSON, another format, a missing, unknown or mistyped field, a duplicate sample_id, or an entry
/// that is not valid.
std::vector<ManifestEntry> read_manifest(const std::filesystem::path& folder);

/// Writes FOLDER/clips.json atomically, sorted by sample_id; checks every entry first.
void write_manifest(const std::filesystem::path& folder, std::vector<ManifestEntry> entries);

/// The clip's frames from its video file: uint8 [F, H, W, 3] (frame_indices applied).
/// @throws Error naming the file: as read_video, or fewer frames or another size than the manifest
/// says.
at::Tensor read_clip_frames(const std::filesystem::path& folder, const ManifestEntry& entry);

}  // namespace minwm::data
