#pragma once
// The camera gap: how much better a model's one-step prediction gets from the right cameras than
// from those of another clip. Two forward passes, zero until the network uses the camera, grows
// smoothly afterwards (spec tiny-world 6).

#include <cstdint>
#include <vector>

#include <torch/torch.h>

#include "minwm/data/batch.h"
#include "minwm/models/backbone.h"
#include "minwm/models/codec/codec.h"

namespace minwm::stages {

/// A held-out clip, the cameras of another one, and the clip's place among all that are judged: the
/// address of its noise.
struct GapClip {
  data::Clip clip;
  at::Tensor other_world_to_camera;  ///< [T, 4, 4]
  int64_t index = 0;
  bool counted = true;  ///< false: only keeps ranks with sharded weights in step
};

struct GapOptions {
  /// Bidirectional: the first latent is given (clean in the sequence or through the conditions, as
  /// the model reads it), the rest is pure noise, latents 1 … T-1 are judged. Causal: every chunk
  /// is pure noise and sees the clean past; chunks 1 … are judged.
  bool causal = false;
  int64_t chunk_frames = 4;
  uint64_t seed = 0;
  int64_t batch = 8;        ///< clips of one forward
  bool first_frame = true;  ///< models that read first latents through the conditions are given one
};

/// Sums of squared pixel errors over the judged frames of some clips; those of several ranks add
/// up.
struct GapErrors {
  double right = 0;
  double wrong = 0;  ///< 0 of a model that reads no cameras: there is nothing to be wrong about
  double copy = 0;
  double values = 0;  ///< how many pixel values were compared
};

/// In dB, from the mean over all judged pixels of all clips.
struct CameraGap {
  double gap = 0;    ///< right - wrong
  double right = 0;  ///< PSNR with the clip's own cameras
  double wrong = 0;  ///< with those of another clip
  double copy = 0;   ///< latent 1 of the truth shown for all frames: what a model that ignores
                     ///< cameras is measured against
};

/// One-step predictions at sigma = 1, decoded by `codec` (on the CPU) and compared with the decoded
/// truth.
/// @throws Error if a clip is too short to judge or does not divide into chunks.
GapErrors camera_gap_errors(models::Backbone& model, models::Codec& codec,
                            const std::vector<GapClip>& clips, const GapOptions& options);

CameraGap camera_gap(const GapErrors& errors);

}  // namespace minwm::stages
