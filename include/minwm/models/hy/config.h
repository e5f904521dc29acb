#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace minwm::models {

/// Fields of the HunyuanVideo-1.5 transformer (spec hy-mmdit 1), under their published names.
struct HyConfig {
  std::array<int64_t, 3> patch_size = {1, 1, 1};
  /// Of the noisy latents; the patch embedding reads 2 in_channels + 1 (image latents and mask).
  int64_t in_channels = 32;
  int64_t out_channels = 32;
  int64_t hidden_size = 2048;
  int64_t heads_num = 16;
  int64_t mm_double_blocks_depth = 54;
  double mlp_width_ratio = 4;
  std::array<int64_t, 3> rope_dim_list = {16, 56, 56};  ///< of a head, for frame, row, column
  double rope_theta = 256;
  int64_t text_states_dim = 3584;
  int64_t vision_states_dim = 1152;
  /// The glyph text's mapper: in → hidden → mid → hidden_size.
  struct Byt5Dims {
    int64_t in = 1472, hidden = 2048, mid = 2048;
  } byt5_dims;
  bool camera = true;   ///< the camera projections exist (Action2V line)
  bool action = false;  ///< discrete actions are read (WorldPlay line)
  /// The camera projections start at zero (a camera model then equals its base model).
  bool camera_init_zero = true;
  /// The embedded default: `vision` is a first latent's patches, no encoder's features.
  bool latent_vision = false;

  int64_t head_dim() const { return hidden_size / heads_num; }
  int64_t mlp_width() const {
    return static_cast<int64_t>(static_cast<double>(hidden_size) * mlp_width_ratio);
  }
  /// @throws Error naming the field that does not fit.
  void validate() const;
};

/// A named size and line: hy-8b (cameras), hy-8b-ti2v (image and text only), hy-8b-worldplay
/// (cameras and discrete actions), and the same of hy-tiny.
HyConfig hy_preset(const std::string& name);
std::vector<std::string> hy_presets();

}  // namespace minwm::models
