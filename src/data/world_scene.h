#pragma once
// What a world is made of. Spec data-camera-eval 13.2, tiny-world 2.
// World axes: x right, y down, z forward; the first camera stands at the origin and looks along z.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "minwm/core/random.h"
#include "minwm/data/world.h"
#include "world_surface.h"

namespace minwm::data {

struct Object {
  Shape shape = Shape::kBox;
  float x = 0, z = 0;    ///< centre; it stands on the ground
  float half_width = 0;  ///< radius of pillars and balls
  float height = 0;      ///< 2 * half_width for balls
  float yaw = 0;         ///< radians, turns the object's axes about y
  int color = 0;         ///< index into kColorNames of texture.first
  Texture texture;
};

struct Ground {
  int kind = 0;      ///< index into kGroundNames
  float height = 0;  ///< y of the plane: the first camera is this far above it
  Texture texture;
};

inline constexpr std::array<const char*, 12> kColorNames = {"red",   "orange", "yellow", "green",
                                                            "teal",  "blue",   "purple", "pink",
                                                            "brown", "white",  "black",  "grey"};
inline constexpr std::array<const char*, 6> kGroundNames = {"grassy", "tiled", "sandy",
                                                            "paved",  "snowy", "wooden"};
inline constexpr std::array<const char*, 4> kSkyNames = {
    "a clear blue sky", "an orange sunset sky", "an overcast grey sky", "a purple dusk sky"};

class World {
 public:
  uint64_t seed = 0;
  WorldStyle style;
  Ground ground;
  Sky sky;
  std::vector<Object> objects;
};

/// Purposes never share draws: layout 1, trajectory 9, caption 17 (trajectory k of a world: 9 + 256
/// k).
inline constexpr uint64_t kLayoutStream = 1, kTrajectoryStream = 9, kCaptionStream = 17;
inline RandomStream world_stream(uint64_t seed, uint64_t purpose) {
  return RandomStream(mix64(seed * 0xD1342543DE82EF95 + purpose));
}

}  // namespace minwm::data
