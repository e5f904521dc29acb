#pragma once
// What only a running stream shows: how long a viewer waits, and whether the world holds together
// far beyond the training length.

#include <vector>

#include "minwm/eval/evaluation.h"
#include "minwm/stream/loaded_model.h"

namespace minwm::apps {

/// Pixels that a token covers, along a side: 16 for the embedded default.
int64_t token_pixels(const models::Backbone& model, const models::Codec& codec);

/// One clip at a time through `clip`'s world, decoded: see eval::Latency. Takes a few seconds at
/// most where one run does (repeats are dropped, not shortened).
eval::Latency measure_latency(const stream::LoadedModel& loaded, const eval::Commanded& clip,
                              const c10::Device& device);

struct LongStreamOptions {
  int64_t latents = 240;
  int64_t worlds = 4;
  int64_t first_seed = 900000;
  int threads = 1;  ///< that render the truth
};

/// Streams worlds side by side along paths that stay near their start (eval::there_and_back).
/// @throws Error if the model does not stream, or `latents` is not above two chunks.
eval::Drift stream_long(const stream::LoadedModel& loaded, const data::WorldStyle& style,
                        const LongStreamOptions& options);

}  // namespace minwm::apps
