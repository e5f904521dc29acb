#pragma once
// What surfaces and sky look like: the part of a world that the shading kernels see.
// Spec data-camera-eval 13.2, 13.5. World axes: x right, y down, z forward.

#include <array>
#include <cstdint>

namespace minwm::data {

using Color = std::array<float, 3>;  ///< red, green, blue in 0 … 1

enum class Shape { kBox, kPillar, kBall };
enum class Pattern { kPlain, kCheckered, kStriped, kDotted, kMottled, kBrick, kPlank };

/// Two colours and how they are mixed over a surface.
struct Texture {
  Pattern pattern = Pattern::kPlain;
  Color first = {}, second = {};
  uint32_t seed = 0;
};

struct Sky {
  int kind = 0;  ///< index into kSkyNames
  Color zenith = {}, horizon = {};
  float mountain_height = 0;              ///< radians
  std::array<float, 3> sun = {0, -1, 0};  ///< unit vector towards the sun
  uint32_t seed = 0;
};

}  // namespace minwm::data
