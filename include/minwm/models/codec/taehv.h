#pragma once
// The tiny autoencoders of the TAEHV family (spec vae 5): 2-D networks with one frame of memory per
// block, between the latents of diffusion and pixels in [0, 1]. Frames are [N, T, C, H, W] here.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/models/codec/causal_conv.h"
#include "minwm/models/codec/streamed_codec.h"

namespace minwm::models {

enum class TaehvArch { kBase, kSuper };

struct TaehvConfig {
  TaehvArch arch = TaehvArch::kBase;
  int64_t patch_size = 1, latent_channels = 16, encoder_width = 64;
  std::vector<int64_t> decoder_widths = {256, 128, 64, 64};
  /// Per stage of the decoder: twice the frames, twice the size. Off in cheaper previews.
  std::vector<bool> time_upscale = {false, true, true}, space_upscale = {true, true, true};

  int64_t frames_per_latent() const;  ///< that the decoder makes
  /// Frames at the start of a stream that show nothing yet.
  int64_t frames_to_trim() const { return frames_per_latent() - 1; }
  /// @throws Error naming the field and what was expected.
  void check() const;
};

/// A step of the networks' sequences, on the next frames of a stream.
class TaehvBlock : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& frames, HistoryPass& pass) const = 0;
};

/// What a stream of pixels remembers between its parts. A copy is a branch.
struct TaehvEncodeState {
  FeatureHistory history;
  at::Tensor pending;  ///< frames of a group that is not full yet; may be undefined
};

/// encoder.*
class TaehvEncoderImpl : public torch::nn::Module {
 public:
  explicit TaehvEncoderImpl(const TaehvConfig& config);
  /// video [N, T, 3, H, W] in [0, 1] → latents [N, ceil(T / 4), C, h, w] float32; the last frame is
  /// repeated where a group of four is not full.
  at::Tensor encode(const at::Tensor& video) const;
  /// The next frames of a stream → the latents that they complete, perhaps none: [N, 0, C, h, w].
  at::Tensor encode_next(const at::Tensor& video, TaehvEncodeState& state) const;
  /// The last latent of a stream, if frames are left: its last frame is repeated. The state starts
  /// anew.
  at::Tensor flush(TaehvEncodeState& state) const;

 private:
  at::Tensor encode_groups(const at::Tensor& video, FeatureHistory& history) const;
  void check_video(const at::Tensor& video) const;

  TaehvConfig config_;
  std::vector<std::shared_ptr<TaehvBlock>> blocks_;
};
TORCH_MODULE(TaehvEncoder);

/// decoder.*
class TaehvDecoderImpl : public torch::nn::Module {
 public:
  explicit TaehvDecoderImpl(const TaehvConfig& config);
  /// The next latents of a stream, [N, n, C, h, w] → all frames the network makes,
  /// [N, frames_per_latent n, 3 patch², H / patch, W / patch].
  at::Tensor raw(const at::Tensor& latents, FeatureHistory& history) const;
  /// The same as pixels [N, frames, 3, H, W] in [0, 1] float32, without the first frames_to_trim
  /// of the stream.
  at::Tensor decode(const at::Tensor& latents, FeatureHistory& history) const;

 private:
  TaehvConfig config_;
  std::vector<std::shared_ptr<TaehvBlock>> blocks_;
};
TORCH_MODULE(TaehvDecoder);

/// The state of one decoded stream. A copy is a branch.
struct TaehvDecodeState final : DecodeState {
  FeatureHistory history;
};

class TaehvCodec final : public StreamedCodec<TaehvDecodeState> {
 public:
  /// @param tensors  all parameters under their published names, any floating type. A time step of
  ///                 the decoder that the configuration turns off keeps the last rows of its
  ///                 weight.
  /// @param where    names them in messages.
  /// @throws Error naming a missing, extra or mis-shaped tensor.
  TaehvCodec(const TaehvConfig& config, const std::map<std::string, at::Tensor>& tensors,
             const std::string& where, at::ScalarType compute = at::kFloat);

  /// "taehv-<16 hex digits of what encodes>".
  std::string name() const override { return name_; }
  int64_t latent_channels() const override { return config_.latent_channels; }
  int64_t spatial_factor() const override { return 8 * config_.patch_size; }
  const TaehvConfig& config() const { return config_; }

  at::Tensor encode(const at::Tensor& pixels) override;

 private:
  /// In [-1, 1]: this network's output is clamped.
  at::Tensor decode_next(const at::Tensor& latents, FeatureHistory& history) override;

  TaehvConfig config_;
  TaehvEncoder encoder_;
  TaehvDecoder decoder_;
  std::string name_;
};

/// Whether these are the names of such an autoencoder.
bool is_taehv(const std::vector<std::string>& names);
/// The sizes that tensors under published names have. @throws Error naming `where` and the tensor.
TaehvConfig taehv_config(const std::map<std::string, at::Tensor>& tensors,
                         const std::string& where);
/// Reads a safetensors or PyTorch file (weights_file.h); sizes come from the tensors.
/// @throws Error naming file and tensor.
std::shared_ptr<TaehvCodec> open_taehv(const std::filesystem::path& path,
                                       at::ScalarType compute = at::kFloat);

}  // namespace minwm::models
