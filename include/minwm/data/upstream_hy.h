#pragma once
// The HY line's published data sets: one .pt file per clip and an index. Spec data-camera-eval
// 10.4, 10.5. Golden kind camera.data.readers.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::data {

/// Tensors without their batch axis of 1, in the dtypes of the file.
struct HySample {
  at::Tensor latent;           ///< [C, T, h, w]
  at::Tensor image_cond;       ///< [C, 1, h, w], the first latent frame
  at::Tensor prompt_embed;     ///< [L, E]
  at::Tensor prompt_mask;      ///< [L] int64
  at::Tensor vision_states;    ///< [P, E'] of the first frame's picture
  at::Tensor byt5_states;      ///< [L', E'']
  at::Tensor byt5_mask;        ///< [L'] int64
  at::Tensor ode_trajectory;   ///< [S, C, T, h, w]; undefined for plain clips
  at::Tensor world_to_camera;  ///< [T, 4, 4] float32
  at::Tensor intrinsics;       ///< [T, 3, 3] float32, normalised
  at::Tensor labels;           ///< [T] int64, camera/action_labels.h with the training threshold
};

/// Reads a clip as the published loader does: cut to `window` latent frames, of a multiple of 4,
/// the cameras aligned to the first frame (or as stored, where a file of ODE trajectories has
/// them).
/// @throws Error naming file and entry: missing or of another shape, not finite, focal length not
/// positive, fewer latent frames than `window`.
HySample read_hy_sample(const std::filesystem::path& file, int64_t window = 20);

/// The encodings of the empty prompt, which replace a sample's for guidance.
struct HyNegativePrompt {
  at::Tensor prompt_embed, prompt_mask;  ///< from hunyuan_neg_prompt.pt
  at::Tensor byt5_states, byt5_mask;     ///< from hunyuan_neg_byt5_prompt.pt
};
HyNegativePrompt read_hy_negative_prompt(const std::filesystem::path& folder);

/// The files of `train_index.json` = [{"latent_path": …}, …] in its order; relative paths start at
/// the index file's folder. @throws Error naming the file and the entry.
std::vector<std::filesystem::path> read_hy_index(const std::filesystem::path& index);

}  // namespace minwm::data
