#pragma once
// Video codec: pixels <-> latents. Latent 0 is frame 0 alone; latent k >= 1 covers frames 4k-3 … 4k
// (spec vae 1).

#include <filesystem>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

namespace minwm::models {

/// Streaming decode state (feature caches); one per session.
class DecodeState {
 public:
  virtual ~DecodeState() = default;
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual std::string name() const = 0;
  virtual int64_t latent_channels() const = 0;
  virtual int64_t spatial_factor() const = 0;
  virtual int64_t temporal_factor() const { return 4; }

  /// pixels [B, F, 3, H, W] float32 in [-1, 1], F = 1 + 4 m → latents [B, 1 + m, C, H / s, W / s]
  /// float32.
  virtual at::Tensor encode(const at::Tensor& pixels) = 0;
  /// latents [B, T, C, h, w] → pixels [B, 1 + 4 (T - 1), 3, H, W], not clamped.
  virtual at::Tensor decode(const at::Tensor& latents) = 0;
  virtual std::unique_ptr<DecodeState> make_decode_state() = 0;
  /// Decodes the next chunk of a stream: n latents → 4 n frames (4 n - 3 for the first chunk);
  /// equals decode().
  virtual at::Tensor decode_stream(const at::Tensor& latents, DecodeState& state) = 0;
};

inline int64_t latent_frames(int64_t pixel_frames) {
  return 1 + (pixel_frames - 1) / 4;
}
inline int64_t pixel_frames(int64_t latent_frames) {
  return 1 + 4 * (latent_frames - 1);
}

/// [-1, 1] float → uint8, u8 = rint(clamp(127.5 v + 127.5)) (spec vae 2).
at::Tensor to_uint8(const at::Tensor& pixels);

/// Opens the codec that a file's tensor names say it is: the analytic codec, the Wan2.1 VAE, the
/// HunyuanVideo-1.5 VAE or a tiny autoencoder; safetensors (also in shards), `.pt`, `.pth` or a
/// folder of such. @throws Error naming the file.
std::shared_ptr<Codec> open_codec(const std::filesystem::path& path);

}  // namespace minwm::models
