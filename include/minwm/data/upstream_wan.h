#pragma once
// The Wan line's published data sets: LMDB of clips, and of ODE trajectories (also as .pt files).
// Spec data-camera-eval 10.3, 10.5. Golden kind camera.data.readers.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::data {

struct WanSample {
  std::string prompt;
  /// [S, T, C, h, w] float32: states from noise to clean; S = 1 for plain clips.
  at::Tensor states;
  at::Tensor world_to_camera;  ///< [T, 4, 4] float32
  at::Tensor intrinsics;       ///< [T, 3, 3] float32, normalised
  /// The last state, [T, C, h, w].
  at::Tensor clean() const { return states[-1]; }
};

/// A folder with data.mdb, or of such folders, concatenated in the order of their names. Clips
/// store `poses` and `intrinsics` (cameras are aligned to the first frame), ODE trajectories
/// `viewmats` and `Ks` (taken as they are).
class WanLmdb {
 public:
  /// @throws Error naming the folder and the key: not such a data set, shapes that disagree.
  explicit WanLmdb(const std::filesystem::path& folder);
  ~WanLmdb();
  int64_t size() const;
  /// @throws Error naming the folder and the key: a missing or malformed row, numbers that are not
  /// finite, a camera that is not rigid.
  WanSample read(int64_t index) const;

 private:
  struct Shard;
  std::vector<Shard> shards_;
};

/// One ODE trajectory file: {prompt, latents [1, S, T, C, h, w], viewmats [1, T, 4, 4], Ks}.
/// Latents are rounded to float16 as the LMDB stores them. @throws Error naming file and entry.
WanSample read_wan_ode_pt(const std::filesystem::path& file);

}  // namespace minwm::data
