// Camera paths of training clips. Spec data-camera-eval 3 and 13.6, tiny-world 2.

#include <algorithm>
#include <array>
#include <set>

#include <ATen/ATen.h>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "world_scene.h"

namespace minwm::data {
namespace {

constexpr int64_t kFramesPerLatent = 4;
constexpr double kStillShare = 0.03;
constexpr int64_t kPitchLimit = 10;  ///< steps of 3 degrees either way

struct Key {
  char letter;
  size_t reverse;  ///< index of the key that undoes it
  int64_t pitch;   ///< steps
};
constexpr std::array<Key, 8> kKeys = {{{'w', 1, 0},
                                       {'s', 0, 0},
                                       {'a', 3, 0},
                                       {'d', 2, 0},
                                       {'j', 5, 0},
                                       {'l', 4, 0},
                                       {'i', 7, 1},
                                       {'k', 6, -1}}};

/// Lengths of the 1 to 3 segments: cuts are 2 or more from both ends, all different.
std::vector<int64_t> draw_lengths(RandomStream& random, int64_t steps) {
  const double u = random.uniform();
  const int64_t possible_cuts = std::max<int64_t>(steps - 3, 0);
  const auto cuts = static_cast<size_t>(std::min<int64_t>(u < .25   ? 0
                                                          : u < .75 ? 1
                                                                    : 2,
                                                          possible_cuts));
  std::set<int64_t> ends = {steps};
  while (ends.size() <= cuts) {
    ends.insert(2 + random.integer(possible_cuts));
  }
  std::vector<int64_t> lengths;
  int64_t begin = 0;
  for (const int64_t end : ends) {
    lengths.push_back(end - begin);
    begin = end;
  }
  return lengths;
}

}  // namespace

at::Tensor interpolate_latent_poses(const at::Tensor& camera_to_world) {
  camera::require_rigid(camera_to_world, "camera_to_world");
  const std::vector<camera::Rigid> latents = camera::to_rigid(camera_to_world);
  std::vector<camera::Rigid> frames;
  for (size_t k = 0; k < latents.size(); ++k) {
    for (int64_t f = 1; k > 0 && f < kFramesPerLatent; ++f) {
      const double fraction = static_cast<double>(f) / kFramesPerLatent;
      frames.push_back(camera::interpolate(latents[k - 1], latents[k], fraction));
    }
    frames.push_back(latents[k]);
  }
  return camera::to_matrices(frames);
}

std::string random_trajectory(uint64_t seed, int64_t index, int64_t steps) {
  require(index >= 0 && steps >= 1,
          "random trajectory {} of {} steps: expected an index >= 0 and at least one step", index,
          steps);
  RandomStream random = world_stream(seed, kTrajectoryStream + (static_cast<uint64_t>(index) << 8));
  if (random.uniform() < kStillShare) {
    return fmt::format(".*{}", steps);
  }
  std::string text;
  size_t previous = kKeys.size();
  int64_t pitch = 0;
  for (const int64_t length : draw_lengths(random, steps)) {
    size_t key = kKeys.size();
    do {
      key = static_cast<size_t>(random.integer(kKeys.size()));
    } while (key == previous || (previous < kKeys.size() && key == kKeys[previous].reverse) ||
             std::abs(pitch + length * kKeys[key].pitch) > kPitchLimit);
    text += fmt::format("{}{}*{}", text.empty() ? "" : ",", kKeys[key].letter, length);
    pitch += length * kKeys[key].pitch;
    previous = key;
  }
  return text;
}

}  // namespace minwm::data
