#pragma once
// WorldStream: camera moves in, frames out, chunk by chunk, on a KV cache. One engine under generate and serve.

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "minwm/models/backbone.h"
#include "minwm/models/codec/codec.h"

namespace minwm::stream {

struct StreamOptions {
  std::vector<double> sigmas = {1.0, 0.9, 0.75, 0.5};  ///< few-step levels, descending; a final 0 is implied
  int64_t chunk_frames = 4;    ///< latent frames per chunk
  int64_t window_frames = 12;  ///< attention window, current chunk and sink included
  int64_t sink_frames = 0;
  uint64_t seed = 0;
  double fx = 0, fy = 0;       ///< normalised intrinsics
};

/// One running world. Not thread-safe.
class WorldStream {
 public:
  WorldStream(std::shared_ptr<models::Backbone> model, std::shared_ptr<models::Codec> codec,
              const StreamOptions& options);
  ~WorldStream();

  /// Starts a clip: text [1, L, text_dim]; first_latent [1, 1, C, h, w] (given frame) or undefined; latent size.
  void begin(const at::Tensor& text, const at::Tensor& first_latent, int64_t height, int64_t width);

  struct Chunk {
    at::Tensor latents;  ///< [1, n, C, h, w]
    at::Tensor pixels;   ///< [1, frames, 3, H, W], not clamped
  };
  /// Generates the next chunk for its camera_to_world poses [n, 4, 4] float64 (absolute, frame 0 = identity).
  Chunk next(const at::Tensor& camera_to_world);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::stream
