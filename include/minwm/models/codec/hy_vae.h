#pragma once
// The HunyuanVideo-1.5 video autoencoder (spec vae 4), weight for weight the published one, as
// minWM uses it (attention within each latent frame, exact streams) and as the original class does
// (one shot, attention over the frames before).

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/codec/hy_vae_blocks.h"
#include "minwm/models/codec/streamed_codec.h"

namespace minwm::models {

struct HyVaeConfig {
  int64_t in_channels = 3, out_channels = 3, latent_channels = 32;
  std::vector<int64_t> block_out_channels = {128, 256, 512, 1024, 1024};
  int64_t layers_per_block = 2;  ///< of a level of the encoder; decoder: one more
  int64_t ffactor_spatial = 16, ffactor_temporal = 4;
  double scaling_factor = 1.03682;  ///< diffusion's latents over the posterior's mean
  bool downsample_match_channel = true, upsample_match_channel = true;

  /// @throws Error naming the field and what was expected.
  void check() const;
};

/// Of what encodes: both halves of [B, 2 C, T, h, w].
struct HyVaePosterior {
  at::Tensor moments;
  at::Tensor mean() const { return moments.chunk(2, 1)[0]; }
  at::Tensor logvar() const { return moments.chunk(2, 1)[1].clamp(-30, 20); }
  at::Tensor std() const { return logvar().mul(0.5).exp(); }
};

/// Spatial tiles for little memory; not exact at the seams (spec vae 4.5).
struct HyVaeTiling {
  int64_t sample_size = 256;  ///< pixels of a tile's side
  double overlap = 0.25;      ///< of a tile, with the next one
};

/// encoder.*
class HyVaeEncoderImpl : public torch::nn::Module {
 public:
  explicit HyVaeEncoderImpl(const HyVaeConfig& config);
  /// A whole clip [B, 3, F, H, W] in passes of 1 and then 4 latents_per_pass frames; the last
  /// (F - 1) mod 4 frames do not count.
  HyVaePosterior encode(const at::Tensor& video, int64_t latents_per_pass = 1) const;
  /// In one pass, with attention over the frames before. F = 1 + 4 m.
  HyVaePosterior encode_oneshot(const at::Tensor& video) const;

 private:
  at::Tensor encode_part(const at::Tensor& video, FeatureHistory& history,
                         HyVaeAttentionScope scope) const;
  void check_video(const at::Tensor& video) const;

  struct Level {
    std::vector<HyVaeResBlock> blocks;
    HyVaeDownsample downsample{nullptr};
  };
  HyVaeConfig config_;
  HyVaeConv conv_in_{nullptr}, conv_out_{nullptr};
  std::vector<Level> levels_;
  HyVaeResBlock middle_in_{nullptr}, middle_out_{nullptr};
  HyVaeAttention attention_{nullptr};
  HyVaeNorm norm_out_{nullptr};
};
TORCH_MODULE(HyVaeEncoder);

/// decoder.*; z is the latent divided by the scaling factor, [B, C, n, h, w].
class HyVaeDecoderImpl : public torch::nn::Module {
 public:
  explicit HyVaeDecoderImpl(const HyVaeConfig& config);
  /// The next n latents of a stream, in passes of at most latents_per_pass (its first latent goes
  /// alone) → [B, 3, 4 n, H, W] float32 (4 n - 3 at the start), not clamped. The history stays as
  /// it was if this throws.
  at::Tensor decode(const at::Tensor& z, FeatureHistory& history,
                    int64_t latents_per_pass = 1) const;
  /// In one pass, with attention over the frames before.
  at::Tensor decode_oneshot(const at::Tensor& z) const;
  /// In tiles, each in one shot, blended over their overlap.
  at::Tensor decode_tiled(const at::Tensor& z, const HyVaeTiling& tiling) const;

 private:
  at::Tensor decode_part(const at::Tensor& z, FeatureHistory& history,
                         HyVaeAttentionScope scope) const;
  void check_latents(const at::Tensor& z) const;

  struct Level {
    std::vector<HyVaeResBlock> blocks;
    HyVaeUpsample upsample{nullptr};
  };
  HyVaeConfig config_;
  HyVaeConv conv_in_{nullptr}, conv_out_{nullptr};
  HyVaeResBlock middle_in_{nullptr}, middle_out_{nullptr};
  HyVaeAttention attention_{nullptr};
  std::vector<Level> levels_;
  HyVaeNorm norm_out_{nullptr};
};
TORCH_MODULE(HyVaeDecoder);

/// The state of one decoded stream. A copy is a branch.
struct HyVaeDecodeState final : DecodeState {
  FeatureHistory history;
};

struct HyVaeOptions {
  at::ScalarType compute = at::kFloat;  ///< or bfloat16, float16; norms stay in float32
  int64_t latents_per_pass = 1;         ///< more fill a GPU better, and take more memory
};

class HyVae final : public StreamedCodec<HyVaeDecodeState> {
 public:
  /// @param tensors  all parameters under their published names, any floating type.
  /// @param where    names them in messages.
  /// @throws Error naming a missing, extra or mis-shaped tensor, or an option.
  HyVae(const HyVaeConfig& config, const std::map<std::string, at::Tensor>& tensors,
        const std::string& where, const HyVaeOptions& options = {});

  /// "hunyuanvideo1.5-vae-<16 hex digits of what encodes>".
  std::string name() const override { return name_; }
  int64_t latent_channels() const override { return config_.latent_channels; }
  int64_t spatial_factor() const override { return config_.ffactor_spatial; }
  const HyVaeConfig& config() const { return config_; }

  /// The posterior's mean. A clip of other than 1 + 4 m frames loses its last ones with a warning.
  at::Tensor encode(const at::Tensor& pixels) override;

 private:
  at::Tensor decode_next(const at::Tensor& latents, FeatureHistory& history) override;

  HyVaeConfig config_;
  HyVaeOptions options_;
  HyVaeEncoder encoder_;
  HyVaeDecoder decoder_;
  std::string name_;
};

/// Whether these are the names of a HunyuanVideo-1.5 autoencoder.
bool is_hy_vae(const std::vector<std::string>& names);
/// The sizes that tensors under published names have. @throws Error naming `where` and the tensor.
HyVaeConfig hy_vae_config(const std::map<std::string, at::Tensor>& tensors,
                          const std::string& where);
/// Reads a safetensors or PyTorch file, or the folder of one (weights_file.h); sizes come from the
/// tensors. @throws Error naming file and tensor.
std::shared_ptr<HyVae> open_hy_vae(const std::filesystem::path& path,
                                   const HyVaeOptions& options = {});

}  // namespace minwm::models
