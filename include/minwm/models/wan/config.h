#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace minwm::models {

/// Constructor fields of the Wan transformer (spec wan-dit 1), under their published names.
struct WanConfig {
  std::string model_type = "t2v";  ///< "t2v" or "i2v"
  std::array<int64_t, 3> patch_size = {1, 2, 2};
  int64_t text_len = 512;
  int64_t in_dim = 16;
  int64_t dim = 1536;
  int64_t ffn_dim = 8960;
  int64_t freq_dim = 256;
  int64_t text_dim = 4096;
  int64_t out_dim = 16;
  int64_t num_heads = 12;
  int64_t num_layers = 30;
  bool qk_norm = true;
  bool cross_attn_norm = true;
  double eps = 1e-6;
  int64_t clip_dim = 1280;  ///< i2v: width of the image features
  bool camera = true;       ///< the prope_o projections exist
  bool camera_init_zero =
      true;  ///< prope_o starts at zero (a camera model then equals its base model)

  /// @throws Error naming the field that does not fit.
  void validate() const;
};

/// A named size: wan-tiny, wan-small, wan-1.3b, wan-14b, wan-14b-i2v.
WanConfig wan_preset(const std::string& name);
std::vector<std::string> wan_presets();

}  // namespace minwm::models
