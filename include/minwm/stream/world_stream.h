#pragma once
// WorldStream: camera moves in, frames out, chunk by chunk, on a KV cache. One engine under `minwm
// generate`, `minwm evaluate` and the server.
//
//   WorldStream stream(model, codec, options);
//   stream.begin(text, first_latent, 8, 8);
//   auto chunk = stream.next(camera_to_world);   // poses of the next chunk's latent frames

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <torch/torch.h>

#include "minwm/diffusion/sampler.h"
#include "minwm/models/backbone.h"
#include "minwm/models/codec/codec.h"

namespace minwm::stream {

using diffusion::Solver;

/// Noise [B, n, C, h, w] of a chunk (0-based, given ones count): step 0 is what it starts from,
/// step k + 1 what is added after denoising step k.
using NoiseSource = std::function<at::Tensor(int64_t chunk, int64_t step, at::IntArrayRef shape)>;

/// WorldPlay's reconstituted context memory (spec hy-mmdit 12): before every chunk but the first
/// the cache is made anew from some of the finished latents, namely the last ones, the first chunk
/// and those that saw the same places (camera::select_memory). They see each other and stand at
/// positions 0 … m - 1, the chunk behind them; nothing is committed after a chunk. However long the
/// video, a chunk costs the same. Finished latents are kept in host memory.
struct ContextMemory {
  int64_t frames = 20;    ///< looked back at, in all
  int64_t temporal = 12;  ///< of these, the last ones
  double timestep = 14;   ///< at which they are read (they are not noised to that level)
};

struct StreamOptions {
  std::vector<double> sigmas = {1.0, 0.9, 0.75,
                                0.5};      ///< noise levels, descending; a final 0 is implied
  std::vector<double> first_chunk_sigmas;  ///< of a chunk without a past; empty = sigmas
  Solver solver = Solver::kRenoise;
  int64_t chunk_frames = 4;    ///< latent frames per chunk
  int64_t window_frames = 12;  ///< attention window, current chunk and sink included
  int64_t sink_frames = 0;     ///< first frames that are never evicted from the window
  double guidance_scale = 1;   ///< v = u + g (c - u); 1 = off (one pass instead of two)
  /// Timestep at which a generated chunk is committed to the cache (it is not noised to that
  /// level); given chunks are committed at 0.
  double context_timestep = 0;
  /// Instead of the window, the sinks and the commits after a chunk.
  std::optional<ContextMemory> memory;
  uint64_t seed = 0;
  double fx = 0, fy = 0;  ///< normalised focal lengths
  NoiseSource noise;      ///< replaces the noise of `seed`: for replays
};

/// One running world (or B of them side by side). Not thread-safe; several may share a model.
class WorldStream {
 public:
  /// `codec` may be null: then chunks carry latents only.
  WorldStream(std::shared_ptr<models::Backbone> model, std::shared_ptr<models::Codec> codec,
              const StreamOptions& options);
  ~WorldStream();
  WorldStream(const WorldStream&) = delete;
  WorldStream& operator=(const WorldStream&) = delete;

  /// Starts over. `conditions` holds the text [B, L, text_dim] and whatever else the model reads;
  /// its cameras are not used (poses come chunk by chunk), its actions only if they are defined
  /// (else they are those of the poses), and frames past the end of its image latents are zeros.
  /// first_latent [B, 1, C, h, w] is the given first frame, or undefined: models that are told it
  /// through their conditions generate frame 0 like the others, for others it is kept as it is.
  /// height and width are those of the latents. `negative` holds the text of guidance's
  /// unconditional pass (undefined = zeros).
  void begin(const models::Conditions& conditions, const at::Tensor& first_latent, int64_t height,
             int64_t width, const models::Conditions& negative = {});
  /// The same for models that read text and nothing else.
  void begin(const at::Tensor& text, const at::Tensor& first_latent, int64_t height, int64_t width);

  struct Chunk {
    at::Tensor latents;  ///< [B, n, C, h, w]
    at::Tensor pixels;   ///< [B, frames, 3, H, W], not clamped; undefined without a codec
  };
  /// Generates the next chunk. camera_to_world [n, 4, 4] or [B, n, 4, 4] float64, absolute poses of
  /// its latent frames (frame 0 of the clip = identity); n may differ from call to call. Models
  /// that read no cameras are not given any, but a context memory selects by them.
  Chunk next(const at::Tensor& camera_to_world);
  /// The same with cameras as the model reads them, [B, n, …]; undefined = none.
  Chunk next(const camera::Cameras& cameras, int64_t frames);

  /// Commits given clean latents [B, n, C, h, w] as the next chunk instead of generating it.
  Chunk accept(const at::Tensor& latents, const at::Tensor& camera_to_world);
  Chunk accept(const at::Tensor& latents, const camera::Cameras& cameras);

  /// Latent frames so far.
  int64_t frames() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::stream
