#pragma once
// Videos of fixed paths through procedural worlds: what `minwm showcase` and the probes of a
// training run show.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/data/world.h"
#include "minwm/stream/loaded_model.h"

namespace minwm::apps {

/// A camera path with a name.
struct Walk {
  std::string name;
  at::Tensor camera_to_world;  ///< [T, 4, 4] float64, frame 0 = identity
};

/// "turn left=j": the keys j held to the end, called "turn left"; without a name the keys are it.
/// "tour=w*4;l*3": a whole pose string (pieces split at `;`), cut or padded by standing still.
/// @throws Error naming `option` and the entry.
std::vector<Walk> parse_walks(const std::vector<std::string>& entries, int64_t latents,
                              const std::string& option);

/// Style of worlds of the model's picture size.
data::WorldStyle world_style(const train::CheckpointInfo& info, const models::Codec& codec,
                             const std::string& style);

/// The text states [1, L, text_dim] of a world's caption. @throws Error naming `where` if the model
/// reads text of another width than the built-in captions have.
at::Tensor world_text(const models::Backbone& model, const data::World& world,
                      const std::string& where);

/// The exact video along a path, through the codec: uint8 [F, H, W, 3].
at::Tensor exact_video(models::Codec& codec, const data::World& world, const Walk& walk,
                       const data::WorldStyle& style);

/// What the model makes of each path, side by side, from the world's first frame and caption: one
/// uint8 [F, H, W, 3] per walk. Walks are of one length.
std::vector<at::Tensor> walk_videos(const stream::LoadedModel& loaded, const data::World& world,
                                    const data::WorldStyle& style, const std::vector<Walk>& walks);

/// [B, F, 3, H, W] in -1 … 1 → B videos uint8 [F, H, W, 3].
std::vector<at::Tensor> to_videos(const at::Tensor& pixels);

/// "4 renoise steps, streamed".
std::string describe_sampler(const stream::LoadedModel& loaded);

}  // namespace minwm::apps
