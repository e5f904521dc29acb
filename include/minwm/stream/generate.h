#pragma once
// Whole clips: streamed chunk by chunk, or denoised at once by the bidirectional model.

#include <memory>
#include <string>
#include <vector>

#include "minwm/stream/world_stream.h"

namespace minwm::stream {

enum class Mode { kStream, kBidirectional };

struct GenerateRequest {
  Mode mode = Mode::kStream;
  /// Text [B, L, text_dim] and whatever else the model reads. Its cameras [B, T, …] are used if
  /// they are defined, camera_to_world otherwise.
  models::Conditions conditions;
  models::Conditions negative;  ///< text of guidance's unconditional pass; undefined = zeros
  /// [B, n, C, h, w] or undefined: the clip's first n latents. Streaming takes n = 1 (inside the
  /// first chunk) or whole chunks; bidirectional any n. Models that are told the first latent
  /// through their conditions are told this one, and n = 1 then keeps nothing clean (bidirectional:
  /// no other n).
  at::Tensor given_latents;
  at::Tensor camera_to_world;     ///< [B, T, 4, 4] or [T, 4, 4] float64, frame 0 = identity
  int64_t frames = 0;             ///< T where a model reads no cameras and none are given
  int64_t height = 0, width = 0;  ///< of the latents
  StreamOptions stream;           ///< sigmas, solver, chunk, window, guidance, seed, intrinsics
                         ///< (bidirectional uses the sigmas, guidance, seed and intrinsics)
};

/// [B, T, C, h, w] float32. The noise of a clip depends on (seed, position in the batch), not on
/// the batch size.
at::Tensor generate_latents(const std::shared_ptr<models::Backbone>& model,
                            const GenerateRequest& request);

}  // namespace minwm::stream
