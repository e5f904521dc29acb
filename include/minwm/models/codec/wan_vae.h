#pragma once
// The Wan2.1 video autoencoder (spec vae 3), weight for weight the published one: video in parts of
// 1 and then 4 n frames to latents, latents to video in a stream of parts of any length.
//
//   auto codec = WanVae::load("Wan2.1_VAE.pth", {.compute = at::kBFloat16});
//   at::Tensor latents = codec.encode(pixels);

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/codec/streamed_codec.h"
#include "minwm/models/codec/wan_vae_blocks.h"

namespace minwm::models {

struct WanVaeConfig {
  int64_t dim = 96, z_dim = 16;
  std::vector<int64_t> dim_mult = {1, 2, 4, 4};  ///< width of each level over dim
  int64_t num_res_blocks = 2;                    ///< of a level of the encoder; decoder: one more
  std::vector<bool> temporal_downsample = {false, true, true};  ///< after each level but the last

  int64_t spatial_factor() const;
  int64_t temporal_factor() const;
  /// @throws Error naming the field and what was expected.
  void check() const;
};

/// Mean and standard deviation of every latent channel: [C] float32. The network's latents are
/// normalised with them outside of the network, in float32.
struct LatentStatistics {
  at::Tensor mean, std;
  /// The published ones of Wan2.1, 16 channels.
  static LatentStatistics wan();
  at::Tensor normalise(const at::Tensor& raw) const;        ///< [B, C, T, h, w] → the same
  at::Tensor denormalise(const at::Tensor& latents) const;  ///< [B, C, T, h, w] → the same
};

/// encoder.* and conv1.*.
class WanVaeEncoderImpl : public torch::nn::Module {
 public:
  explicit WanVaeEncoderImpl(const WanVaeConfig& config);
  /// A whole clip, in passes of 1 and then 4 latents_per_pass frames: memory does not grow with the
  /// clip. video [B, 3, F, H, W] → the posterior's mean [B, C, T, h, w] float32, not normalised;
  /// the last (F - 1) mod 4 frames do not count.
  at::Tensor encode(const at::Tensor& video, int64_t latents_per_pass = 1) const;

 private:
  at::Tensor encode_part(const at::Tensor& video, FeatureHistory& history) const;

  int64_t z_dim_;
  ConvWeights conv_in_{nullptr}, conv_out_{nullptr}, moments_{nullptr};
  std::vector<std::shared_ptr<WanVaeBlock>> blocks_;
  WanVaeNorm norm_out_{nullptr};
};
TORCH_MODULE(WanVaeEncoder);

/// decoder.* and conv2.*.
class WanVaeDecoderImpl : public torch::nn::Module {
 public:
  explicit WanVaeDecoderImpl(const WanVaeConfig& config);
  /// The next n latents of a stream, in passes of at most latents_per_pass (its first latent goes
  /// alone). z [B, C, n, h, w], not normalised → [B, 3, 4 n, H, W] float32 (4 n - 3 at the start of
  /// a stream), not clamped. With one latent per pass the bits do not depend on how a stream is
  /// divided. The history stays as it was if this throws.
  at::Tensor decode(const at::Tensor& z, FeatureHistory& history,
                    int64_t latents_per_pass = 1) const;

 private:
  at::Tensor decode_part(const at::Tensor& z, FeatureHistory& history) const;

  int64_t z_dim_;
  ConvWeights latents_{nullptr}, conv_in_{nullptr}, conv_out_{nullptr};
  std::vector<std::shared_ptr<WanVaeBlock>> blocks_;
  WanVaeNorm norm_out_{nullptr};
};
TORCH_MODULE(WanVaeDecoder);

struct WanVaeOptions {
  at::ScalarType compute = at::kFloat;  ///< or bfloat16, float16; norms stay in float32
  int64_t latents_per_pass = 1;         ///< more fill a GPU better, and take more memory
  bool strict = false;                  ///< refuse clips of other than 1 + 4 m frames

  void check() const;  ///< @throws Error naming the option
};

/// The state of one decoded stream. A copy is a branch.
struct WanVaeDecodeState final : DecodeState {
  FeatureHistory history;
};

class WanVae final : public StreamedCodec<WanVaeDecodeState> {
 public:
  /// @param tensors  all parameters under their published names, any floating type.
  /// @param where    names them in messages.
  /// @throws Error as load.
  WanVae(const WanVaeConfig& config, const std::map<std::string, at::Tensor>& tensors,
         const std::string& where, const WanVaeOptions& options = {});
  /// Reads a safetensors or PyTorch file, or the folder of one (weights_file.h), with the published
  /// names or those of diffusers; sizes come from the tensors. @throws Error naming file and
  /// tensor: not such a file, a missing, extra or mis-shaped tensor, other than 16 latent channels
  /// or strides (4, 8, 8).
  static WanVae load(const std::filesystem::path& path, const WanVaeOptions& options = {});

  /// "wan2.1-vae-<16 hex digits of what encodes>": codecs of one name share their latents, whatever
  /// their decoders and types of computation.
  std::string name() const override { return name_; }
  int64_t latent_channels() const override { return config_.z_dim; }
  int64_t spatial_factor() const override { return config_.spatial_factor(); }
  const WanVaeConfig& config() const { return config_; }

  /// The weights follow the input to its device. A clip of other than 1 + 4 m frames loses its last
  /// ones with a warning (or see WanVaeOptions::strict). @throws Error on another shape than
  /// codec.h states.
  at::Tensor encode(const at::Tensor& pixels) override;

 private:
  at::Tensor decode_next(const at::Tensor& latents, FeatureHistory& history) override;

  WanVaeConfig config_;
  WanVaeOptions options_;
  WanVaeEncoder encoder_;
  WanVaeDecoder decoder_;
  std::string name_;
};

/// Whether these are the names of a Wan2.1 autoencoder, published or of diffusers.
bool is_wan_vae(const std::vector<std::string>& names);
/// Names of diffusers become the published ones; published ones stay.
std::map<std::string, at::Tensor> published_wan_vae_names(
    const std::map<std::string, at::Tensor>& tensors, const std::string& where);
/// The sizes that tensors under published names have. @throws Error naming `where` and what is
/// missing.
WanVaeConfig wan_vae_config(const std::map<std::string, at::Tensor>& tensors,
                            const std::string& where);

}  // namespace minwm::models
