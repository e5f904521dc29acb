#pragma once
// The arithmetic of the renderer: loops over arrays of rays that the compiler turns into vector
// code. Spec data-camera-eval 13.3 - 13.5.
//
// Rays are given by their place on the camera's image plane at depth 1, so a ray's parameter t is
// its z-depth. Kernels are compiled for several instruction sets and give the same bits on each: no
// libm, no fused multiply-add, no reordering. Counts are padded to kLanes (the last ray repeated),
// so no loop has a remainder.

#include <cstdint>

#include "world_surface.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define MINWM_KERNEL __attribute__((target_clones("avx2", "default")))
#else
#define MINWM_KERNEL
#endif

namespace minwm::data {

inline constexpr int kLanes = 16;
inline constexpr int kTileWidth = 64, kTileHeight = 4;  ///< pixels
inline constexpr int kMaxRays = kTileWidth * kTileHeight * 4 * 4 + kLanes;
inline constexpr float kNoHit = 1e30F;
inline constexpr float kGroundEnd = 60;  ///< the ground is not seen beyond this depth

inline int padded(int count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

/// Camera rays in some frame of reference: point(t) = origin + t (x right + y down + forward).
struct RayFrame {
  float origin[3], right[3], down[3], forward[3];
};

/// The rays of one tile and what they hit.
struct alignas(64) Tile {
  float x[kMaxRays], y[kMaxRays];  ///< on the image plane at depth 1
  float t[kMaxRays];               ///< nearest hit so far, kNoHit = none
  int32_t id[kMaxRays];            ///< 0 sky, 1 ground, 2 + i object i
  float red[kMaxRays], green[kMaxRays], blue[kMaxRays];
};

/// The rays of one tile that hit one surface.
struct alignas(64) Batch {
  int32_t ray[kMaxRays];  ///< index into the tile
  float x[kMaxRays], y[kMaxRays], t[kMaxRays];
  float qx[kMaxRays], qy[kMaxRays], qz[kMaxRays];  ///< texture coordinates; sky: unit direction
  float footprint[kMaxRays];                       ///< size of a pixel on the surface
  float light[kMaxRays];
  float noise[kMaxRays], blend[kMaxRays];
  float red[kMaxRays], green[kMaxRays], blue[kMaxRays];
};

/// Additional arrays for the sky.
struct alignas(64) SkyBatch {
  float elevation[kMaxRays];  ///< radians
  float cloud_x[kMaxRays], cloud_z[kMaxRays], cloud_footprint[kMaxRays];
  float ridge_x[kMaxRays], ridge_z[kMaxRays], rock_y[kMaxRays];
  float clouds[kMaxRays], ridge[kMaxRays], rock[kMaxRays];
};

/// A box, pillar or ball with its centre at the frame's origin.
struct Solid {
  RayFrame frame;
  float half_width, half_height;
  float sun[3];  ///< towards the sun, in the object's frame
};

// Each of these keeps the nearest hit of n rays, t > 0.001.
void trace_ground(Tile& tile, int n, const RayFrame& frame, float height);
void trace_box(Tile& tile, int n, const Solid& solid, int32_t id);
void trace_pillar(Tile& tile, int n, const Solid& solid, int32_t id);
void trace_ball(Tile& tile, int n, const Solid& solid, int32_t id);

// Each of these turns x, y, t into texture coordinates, footprint and light.
// pixel = size of an image pixel on the plane at depth 1.
void locate_ground(Batch& batch, int n, const RayFrame& frame, float pixel, const Sky& sky);
void locate_box(Batch& batch, int n, const Solid& solid, float pixel);
void locate_pillar(Batch& batch, int n, const Solid& solid, float pixel);
void locate_ball(Batch& batch, int n, const Solid& solid, float pixel);

/// How far between first and second colour: blend from q and footprint, faded to its mean where a
/// pixel covers more than a quarter of a period.
void shade_pattern(Batch& batch, int n, const Texture& texture, bool on_ground);
/// Colours of a lit surface in fog. gain multiplies the texture's colours.
void shade_surface(Batch& batch, int n, const Texture& texture, const Sky& sky, float gain);
/// Colours of the sky by direction alone. ray_spacing = distance of neighbouring rays at depth 1.
void shade_sky(Batch& batch, SkyBatch& extra, int n, const RayFrame& frame, const Sky& sky,
               float ray_spacing);

}  // namespace minwm::data
