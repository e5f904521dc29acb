#pragma once
// What a generated video was asked to show: a world, a start and a camera path. Everything that
// judges following starts from this.

#include <array>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/data/world.h"

namespace minwm::eval {

struct Commanded {
  std::string name;        ///< shown in reports, e.g. "world 900003"
  std::string trajectory;  ///< canonical pose string
  uint64_t world_seed = 0;
  std::shared_ptr<const data::World> world;
  data::WorldStyle style;
  at::Tensor camera_to_world;  ///< [T, 4, 4] float64, one per latent frame, frame 0 = identity
  int64_t given = 1;  ///< latent frames the generator was handed; those after it are judged
  int64_t frames() const { return camera_to_world.size(0); }
};

/// A clip of `latent_frames` in the world of `world_seed`.
/// @param trajectory  pose string; cut, or padded by standing still. Empty = the world's own random
/// path.
/// @throws Error if `given` is not in 1 … latent_frames - 1.
Commanded command_clip(uint64_t world_seed, const data::WorldStyle& style, int64_t latent_frames,
                       int64_t given, const std::string& trajectory = "");

/// The exact video, one frame per video frame: uint8 [1 + 4 (T - 1), H, W, 3].
at::Tensor render_truth(const Commanded& clip);

/// Every 4th frame, the one a latent's pose stands for: uint8 [T, H, W, 3] of [1 + 4 (T - 1), H, W,
/// 3].
at::Tensor latent_time_frames(const at::Tensor& frames);

// --- Rival paths. All keep the first `given` poses and change the motions after them; [T, 4, 4]
// float64.

/// Every motion times `scale`: 0.5 = half the amplitude, 0 = still, -1 = mirrored (w <-> s, a <->
/// d, j <-> l, i <-> k).
at::Tensor scaled_path(const at::Tensor& camera_to_world, int64_t given, double scale);
/// The same motions, `latents` later: stands still first.
at::Tensor delayed_path(const at::Tensor& camera_to_world, int64_t given, int64_t latents);
/// The motions of `trajectory` instead.
at::Tensor other_path(const at::Tensor& camera_to_world, int64_t given,
                      const std::string& trajectory);

/// The nine motions that action accuracy knows, in this order.
inline constexpr std::array<const char*, 9> kKeys = {"w", "s", "a", "d",    "j",
                                                     "l", "i", "k", "still"};
inline constexpr int kStill = 8;
/// Key commanded at each latent step: [T], entry i is the motion from i - 1 to i; -1 where it is
/// none of the nine (compound or real motion) and at 0.
std::vector<int> commanded_keys(const at::Tensor& camera_to_world);

}  // namespace minwm::eval
