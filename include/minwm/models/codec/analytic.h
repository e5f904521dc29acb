#pragma once
// The analytic codec: a causal linear video codec from two principal component analyses, fitted in
// seconds and without training. Spec tiny-world 3.
//
// Frame 0 is cut into p x p patches (3 p p numbers → C), every later group of four frames into
// 4 x p x p blocks (12 p p numbers → C). Channel c of a group is matched to channel c of frame 0,
// so that one patch embedding serves both. Blocks are decoded one by one, or, after fit_decoder,
// each with a look at the latent vectors around it.
//
//   auto codec = AnalyticCodec::fit(clips, {.patch = 8, .channels = 16});
//   codec.fit_decoder(clips, {});
//   codec.save("codec.safetensors");
//   at::Tensor latents = codec.encode(pixels);

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "minwm/models/codec/codec.h"
#include "minwm/models/codec/neighbourhood.h"

namespace minwm::models {

struct AnalyticCodecOptions {
  int64_t patch = 8;      ///< pixels, both ways
  int64_t channels = 16;  ///< at most 3 patch²
  /// Channel c is divided by std_c^whitening (0 = principal components as they are, 1 = all of unit
  /// variance) and by one factor that makes the mean square over the channels 1.
  double whitening = 0.5;

  void check() const;  ///< @throws Error naming the option and its range
};

/// An affine map of blocks of D numbers, ordered (frame, colour, y, x), to C channels:
/// z = basis (x - mean) / scale.
struct AnalyticBasis {
  at::Tensor basis;  ///< [C, D] float32, orthonormal rows
  at::Tensor mean;   ///< [D] float32
  at::Tensor scale;  ///< [C] float32, > 0

  at::Tensor encode(const at::Tensor& blocks) const;   ///< [N, D] → [N, C]
  at::Tensor decode(const at::Tensor& latents) const;  ///< [N, C] → [N, D]
};

class AnalyticCodec final : public Codec {
 public:
  /// Fits both bases to the patches of `clips`, each uint8 [F, H, W, 3] with F = 1 + 4 m, m >= 1.
  /// The covariances are exact, so neither the order of the clips nor the number of threads changes
  /// a bit. @throws Error naming the clip and its shape, or if there is too little variation for
  /// `channels` channels.
  static AnalyticCodec fit(const std::vector<at::Tensor>& clips,
                           const AnalyticCodecOptions& options);
  /// Gives the codec a decoder that sees the latent vectors around a block, fitted to `clips` (as
  /// for fit; those of the fit itself are a good choice) as this codec encodes them. Latents, and
  /// so the codec's name, stay as they are. The number of threads changes no bit.
  /// @throws Error naming the clip and its shape, or the option.
  void fit_decoder(const std::vector<at::Tensor>& clips, const NeighbourhoodOptions& options);
  /// The same latents, every block decoded alone.
  AnalyticCodec without_neighbourhood() const;
  /// Reads files with and without such a decoder.
  /// @throws Error naming file and tensor: not such a file, another version, a missing tensor, a
  /// wrong shape or type, values that are not finite, content that does not match its hash.
  static AnalyticCodec load(const std::filesystem::path& path);
  /// Writes a safetensors file, atomically.
  void save(const std::filesystem::path& path) const;

  /// "analytic-8x8x16-<16 hex digits of what encodes>": codecs of one name share their latents,
  /// whatever their decoders.
  std::string name() const override { return name_; }
  /// "block", or "neighbourhood-3x3-<16 hex digits of its content>".
  std::string decoder() const;
  int64_t latent_channels() const override { return options_.channels; }
  int64_t spatial_factor() const override { return options_.patch; }
  const AnalyticCodecOptions& options() const { return options_; }

  /// Results lie on the input's device. Earlier latents and frames do not depend on later ones, bit
  /// for bit. @throws Error on another shape than codec.h states.
  at::Tensor encode(const at::Tensor& pixels) override;
  at::Tensor decode(const at::Tensor& latents) override;
  std::unique_ptr<DecodeState> make_decode_state() override;
  at::Tensor decode_stream(const at::Tensor& latents, DecodeState& state) override;

 private:
  struct Neighbourhood {
    NeighbourhoodOptions options;
    NeighbourhoodDecoder frame, group;
  };

  AnalyticCodec(const AnalyticCodecOptions& options, AnalyticBasis frame, AnalyticBasis group);
  at::Tensor decode_from(const at::Tensor& latents, bool first) const;
  at::Tensor decode_blocks(const at::Tensor& latents, bool single) const;

  AnalyticCodecOptions options_;
  AnalyticBasis frame_, group_;
  std::string name_;
  std::optional<Neighbourhood> neighbourhood_;
};

}  // namespace minwm::models
