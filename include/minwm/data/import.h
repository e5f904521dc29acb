#pragma once
// Real clips with cameras into a clip folder (manifest.h).

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/data/latent_store.h"

namespace minwm::data {

struct ImportOptions {
  /// Video frames of the clip per file frame after the first: 1 = as filmed, 2 or 4 = slow films
  /// whose frames are held. Clip frame f shows file frame ceil(f / hold), so that latent k has
  /// exactly the camera of file frame 4 k / hold.
  int64_t hold = 4;
  int64_t latent_frames = 12;  ///< at most; 0 = as many as the file has
  /// Multiply translations so that the median step between latents is camera::kStep: the scale of
  /// estimated cameras is arbitrary. Off for commanded cameras.
  bool rescale = true;
};

struct ImportReport {
  int64_t imported = 0;
  std::vector<FailedSample> refused;  ///< with the reason
};

/// Where clips in the RealEstate10K layout lie: `root`/re10k or `root` itself; nothing if neither
/// has a poses folder.
std::optional<std::filesystem::path> find_re10k(const std::filesystem::path& root);

/// SOURCE/videos/<id>.mp4, SOURCE/poses/<id>.txt (camera/re10k.h; one line per video frame),
/// SOURCE/captions.json {"prompts": [...]} in the order of the sorted ids. Copies the videos into
/// FOLDER and writes its manifest. A clip without video, with fewer frames than poses, or with
/// implausible cameras is refused with the reason, and the rest goes on.
/// @throws Error naming the file: no pose file, captions missing or of another number.
ImportReport import_re10k(const std::filesystem::path& source, const std::filesystem::path& folder,
                          const ImportOptions& options);

/// ROOT/preencode_input.json if it is there.
std::optional<std::filesystem::path> find_list(const std::filesystem::path& root);

/// The reference's input list [{"image_path", "caption", "pose_str"[, "pose_json_path"]}] and its
/// videos ROOT/videos/{i:06d}_{suffix(pose_str)}/gen.mp4 with commanded cameras (spec
/// data-camera-eval 10.2). Refused with the reason: an entry without video, with a bad pose string,
/// or with fewer poses or video frames than latent_frames.
/// @throws Error naming the file: not JSON, not a list, a missing or mistyped field.
ImportReport import_list(const std::filesystem::path& list, const std::filesystem::path& folder,
                         const ImportOptions& options);

}  // namespace minwm::data
