#pragma once
// Real videos through the codec: what picture quality training on them can reach.

#include <string>
#include <vector>

#include "minwm/eval/evaluation.h"
#include "minwm/models/codec/codec.h"

namespace minwm::eval {

struct RealClipOptions {
  std::string store;  ///< latent store of the clips; "" = encode the videos
  std::string
      folder;  ///< clip folder (manifest.h); "" = the folder NAME-clips beside the store NAME.h5
  int64_t count = 2;  ///< the first clips, by sample id
};

/// Decodes the clips' latents (those of the store where it is named) and compares them with the
/// source frames at `height` x `width` pixels, resized as `minwm data encode` does. No clips if
/// neither store nor folder is named.
/// @throws Error naming the store or folder: absent or damaged, made with another codec or size, or
/// a stored clip that the folder does not hold.
std::vector<RealClip> reconstruct_real_clips(const RealClipOptions& options, models::Codec& codec,
                                             int64_t height, int64_t width);

}  // namespace minwm::eval
