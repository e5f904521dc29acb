#pragma once
// What a stream with a context memory keeps of its finished frames, and what it looks back at.

#include <vector>

#include "frame_inputs.h"
#include "minwm/stream/world_stream.h"

namespace minwm::stream {

/// Finished latents in host memory, with what the model was told of them.
class History {
 public:
  /// `seed` addresses the points that views are compared by.
  History(const ContextMemory& options, uint64_t seed);
  void append(const at::Tensor& latents, const FrameInputs& frames);
  void clear() { frames_.clear(); }

  struct Recalled {
    at::Tensor latents;  ///< [B, m, C, h, w]
    FrameInputs frames;
  };
  /// The frames that the next ones with these cameras [B, n, …] look back at, in their order, on
  /// the cameras' device. @throws Error if the clips of a batch have different numbers of them.
  Recalled recall(const camera::Cameras& next) const;

  /// More than recall() ever returns of one clip.
  static int64_t most_frames(const ContextMemory& options);

 private:
  struct Frame {
    at::Tensor latent, world_to_camera, intrinsics, action;  // [B, …]; actions may be undefined
  };
  at::Tensor select(const at::Tensor& next_views) const;
  at::Tensor gather(at::Tensor Frame::*field, const at::Tensor& index) const;

  ContextMemory options_;
  at::Tensor points_;
  std::vector<Frame> frames_;
};

}  // namespace minwm::stream
