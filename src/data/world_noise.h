#pragma once
// Lattice noise of the procedural worlds. Spec data-camera-eval 13.1.
//
// Everything here is forced inline so that the kernels, which exist once per instruction set,
// compile it for theirs. Only exactly rounded operations are used (no libm, no fused multiply-add),
// so every instruction set gives the same bits.

#include <cmath>
#include <cstdint>

#define MINWM_FORCE_INLINE inline __attribute__((always_inline))

namespace minwm::data {

MINWM_FORCE_INLINE int32_t floor_to_int(float x) {
  const auto truncated = static_cast<int32_t>(x);
  return truncated - static_cast<int32_t>(x < static_cast<float>(truncated));
}

/// One factor of the lattice hash per axis; a corner's hash starts from their exclusive or.
inline constexpr uint32_t kHashX = 0x8da6b343, kHashY = 0xd8163841, kHashZ = 0xcb1ab31f;
inline constexpr uint32_t kHashSeed = 0x9E3779B1;

/// Finishes the hash of mixed coordinates: 24 bits.
MINWM_FORCE_INLINE int32_t finish_hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352d;
  x ^= x >> 15;
  x *= 0x846ca68b;
  x ^= x >> 16;
  return static_cast<int32_t>(x >> 8);
}

/// 24-bit hash of a lattice point; negative coordinates as two's complement.
MINWM_FORCE_INLINE int32_t lattice_hash(int32_t ix, int32_t iy, int32_t iz, uint32_t seed) {
  return finish_hash((static_cast<uint32_t>(ix) * kHashX) ^ (static_cast<uint32_t>(iy) * kHashY) ^
                     (static_cast<uint32_t>(iz) * kHashZ) ^ (seed * kHashSeed));
}

/// The same in [0, 1).
MINWM_FORCE_INLINE float lattice_value(int32_t ix, int32_t iy, int32_t iz, uint32_t seed) {
  return static_cast<float>(lattice_hash(ix, iy, iz, seed)) * 0x1p-24F;
}

MINWM_FORCE_INLINE float smooth_weight(float w) {
  return w * w * (3 - 2 * w);
}

/// Four corners of a lattice square, blended: values in [0, 2^24). hx, hz: hashed lower
/// coordinates.
MINWM_FORCE_INLINE float blend_square(uint32_t hx, uint32_t hz, uint32_t rest, float wx, float wz) {
  const uint32_t hx1 = hx + kHashX;
  const uint32_t hz1 = hz + kHashZ;
  const auto v00 = static_cast<float>(finish_hash(hx ^ hz ^ rest));
  const auto v10 = static_cast<float>(finish_hash(hx1 ^ hz ^ rest));
  const auto v01 = static_cast<float>(finish_hash(hx ^ hz1 ^ rest));
  const auto v11 = static_cast<float>(finish_hash(hx1 ^ hz1 ^ rest));
  const float low = v00 + wx * (v10 - v00);
  const float high = v01 + wx * (v11 - v01);
  return low + wz * (high - low);
}

/// Value noise in [0, 1) at (x, 0, z).
MINWM_FORCE_INLINE float value_noise_plane(float x, float z, uint32_t seed) {
  const int32_t ix = floor_to_int(x);
  const int32_t iz = floor_to_int(z);
  return 0x1p-24F * blend_square(static_cast<uint32_t>(ix) * kHashX,
                                 static_cast<uint32_t>(iz) * kHashZ, seed * kHashSeed,
                                 smooth_weight(x - static_cast<float>(ix)),
                                 smooth_weight(z - static_cast<float>(iz)));
}

/// Value noise in [0, 1) at (x, y, z).
MINWM_FORCE_INLINE float value_noise(float x, float y, float z, uint32_t seed) {
  const int32_t ix = floor_to_int(x);
  const int32_t iy = floor_to_int(y);
  const int32_t iz = floor_to_int(z);
  const float wx = smooth_weight(x - static_cast<float>(ix));
  const float wz = smooth_weight(z - static_cast<float>(iz));
  const uint32_t hx = static_cast<uint32_t>(ix) * kHashX;
  const uint32_t hz = static_cast<uint32_t>(iz) * kHashZ;
  const uint32_t hy = static_cast<uint32_t>(iy) * kHashY;
  const float low = blend_square(hx, hz, hy ^ (seed * kHashSeed), wx, wz);
  const float high = blend_square(hx, hz, (hy + kHashY) ^ (seed * kHashSeed), wx, wz);
  return 0x1p-24F * (low + smooth_weight(y - static_cast<float>(iy)) * (high - low));
}

/// Sum of octaves: octave o has frequency 2^o, weight 2^-(o+1) and seed + o; weights sum to 1.
inline float fbm(float x, float y, float z, int octaves, uint32_t seed) {
  float sum = 0;
  float weights = 0;
  for (int o = 0; o < octaves; ++o) {
    const float frequency = static_cast<float>(1 << o);
    const float weight = 0.5F / frequency;
    sum += weight * value_noise(frequency * x, frequency * y, frequency * z,
                                seed + static_cast<uint32_t>(o));
    weights += weight;
  }
  return sum / weights;
}

}  // namespace minwm::data
