// Textures, light and fog of surfaces, and the sky.

#include <algorithm>
#include <bit>
#include <cmath>

#include "world_kernels.h"
#include "world_noise.h"

namespace minwm::data {
namespace {

constexpr float kFogLength = 18;
constexpr float kHalfPi = 1.57079632679F;

MINWM_FORCE_INLINE float clamp_unit(float x) {
  return x < 0 ? 0.F : x > 1 ? 1.F : x;
}

/// Contrast that is left of a texture: 1 up to a quarter of a period per pixel, 0 from a half.
MINWM_FORCE_INLINE float fade(float footprint, float frequency) {
  return clamp_unit(4 * (0.5F - footprint * frequency));
}

/// exp(-x) for 0 <= x <= 4, to 1e-6: Taylor's series of exp(-x / 16), squared four times.
MINWM_FORCE_INLINE float decay(float x) {
  const float s = x * -0.0625F;
  float e = 1 + s * (1 + s * (0.5F + s * (1.F / 6 + s * (1.F / 24))));
  e *= e;
  e *= e;
  e *= e;
  return e * e;
}

/// arcsin for |x| <= 1, to 1e-6 (Abramowitz and Stegun 4.4.46).
MINWM_FORCE_INLINE float arcsine(float x) {
  const float a = std::fabs(x) < 1 ? std::fabs(x) : 1.F;
  float p = -0.0012624911F;
  p = p * a + 0.0066700901F;
  p = p * a - 0.0170881256F;
  p = p * a + 0.0308918810F;
  p = p * a - 0.0501743046F;
  p = p * a + 0.0889789874F;
  p = p * a - 0.2145988016F;
  p = p * a + 1.5707963050F;
  const float angle = kHalfPi - std::sqrt(1 - a) * p;
  return x < 0 ? -angle : angle;
}

/// x^0.6 for 0 <= x <= 1, within 0.002: x^(1/2 + 1/16 + 1/32 + 1/128).
MINWM_FORCE_INLINE float power_0_6(float x) {
  const float half = std::sqrt(x);
  const float sixteenth = std::sqrt(std::sqrt(std::sqrt(half)));
  const float root_32 = std::sqrt(sixteenth);
  return half * sixteenth * root_32 * std::sqrt(std::sqrt(root_32));
}

/// The smallest of n values >= 0. Their bits order as integers do, and integer minima vectorise.
MINWM_FORCE_INLINE float smallest(const float* values, int n) {
  int32_t least = std::bit_cast<int32_t>(kNoHit);
  for (int i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<int32_t>(values[i]);
    least = bits < least ? bits : least;
  }
  return std::bit_cast<float>(least);
}

/// Lattice cells per unit along each axis.
struct Scale {
  float x, y, z;
};

constexpr float kOctaveWeights[] = {0, 1 / .5F, 1 / .75F, 1 / .875F, 1 / .9375F, 1 / .96875F};

/// What an octave needs beside the coordinates.
struct Octaves {
  Scale scale;
  int count;
  uint32_t seed;
};

/// fbm of up to five octaves, each faded to its mean by the footprint (a wave is two cells long),
/// so octaves that no ray of the batch can resolve cost nothing. `plane`: y is 0 everywhere.
template <bool plane>
MINWM_FORCE_INLINE void faded_fbm(const float* __restrict x, const float* __restrict y,
                                  const float* __restrict z, const float* __restrict footprint,
                                  int n, const Octaves& octaves, float* __restrict out) {
  for (int i = 0; i < n; ++i) {
    out[i] = 0.5F;
  }
  const float finest = smallest(footprint, n);
  const Scale& scale = octaves.scale;
  const float highest = std::max(std::max(scale.x, scale.y), scale.z);
  for (int o = 0; o < octaves.count; ++o) {
    const auto frequency = static_cast<float>(1 << o);
    const float waves = 0.5F * frequency * highest;
    if (finest * waves >= 0.5F) {
      return;
    }
    const float weight = kOctaveWeights[octaves.count] * 0.5F / frequency;
    const Scale s = {scale.x * frequency, scale.y * frequency, scale.z * frequency};
    const uint32_t seed = octaves.seed + static_cast<uint32_t>(o);
    for (int i = 0; i < n; ++i) {
      const float value = plane ? value_noise_plane(s.x * x[i], s.z * z[i], seed)
                                : value_noise(s.x * x[i], s.y * y[i], s.z * z[i], seed);
      out[i] += weight * fade(footprint[i], waves) * (value - 0.5F);
    }
  }
}

}  // namespace

/// In the plane y = 0: half the cost.
MINWM_KERNEL void fbm_plane(const float* x, const float* z, const float* footprint, int n,
                            const Octaves& octaves, float* out) {
  faded_fbm<true>(x, nullptr, z, footprint, n, octaves, out);
}

MINWM_KERNEL void fbm_space(const float* x, const float* y, const float* z, const float* footprint,
                            int n, const Octaves& octaves, float* out) {
  faded_fbm<false>(x, y, z, footprint, n, octaves, out);
}

namespace {

MINWM_FORCE_INLINE void surface_fbm(Batch& b, int n, Scale scale, int octaves, uint32_t seed,
                                    bool on_ground) {
  if (on_ground) {
    fbm_plane(b.qx, b.qz, b.footprint, n, {scale, octaves, seed}, b.noise);
  } else {
    fbm_space(b.qx, b.qy, b.qz, b.footprint, n, {scale, octaves, seed}, b.noise);
  }
}

MINWM_FORCE_INLINE float fraction(float x) {
  return x - static_cast<float>(floor_to_int(x));
}

/// 0.85 of a two-valued pattern and 0.15 of fine noise.
template <class Cell>
MINWM_FORCE_INLINE void two_valued(Batch& b, int n, const Texture& texture, bool on_ground,
                                   float waves, float mean, const Cell& cell) {
  surface_fbm(b, n, {6, 6, 6}, 3, texture.seed, on_ground);
  for (int i = 0; i < n; ++i) {
    const float value = cell(b.qx[i], b.qy[i], b.qz[i]);
    const float faded = mean + fade(b.footprint[i], waves) * (value - mean);
    b.blend[i] = 0.85F * faded + 0.15F * b.noise[i];
  }
}

/// One brightness per brick or board, and grain.
template <class Cell>
MINWM_FORCE_INLINE void cell_valued(Batch& b, int n, float waves, const Cell& cell) {
  for (int i = 0; i < n; ++i) {
    const float value = cell(b.qx[i], b.qz[i]);
    b.blend[i] = 0.6F * (0.5F + fade(b.footprint[i], waves) * (value - 0.5F)) + 0.4F * b.noise[i];
  }
}

/// Unit direction, elevation and the coordinates of clouds, ridge and rock.
MINWM_FORCE_INLINE void place_sky(Batch& b, SkyBatch& s, int n, const RayFrame& f, float spacing) {
  for (int i = 0; i < n; ++i) {
    const float dx = b.x[i] * f.right[0] + b.y[i] * f.down[0] + f.forward[0];
    const float dy = b.x[i] * f.right[1] + b.y[i] * f.down[1] + f.forward[1];
    const float dz = b.x[i] * f.right[2] + b.y[i] * f.down[2] + f.forward[2];
    const float flat = dx * dx + dz * dz;
    const float inverse = 1 / std::sqrt(flat + dy * dy);
    const float around = 1 / std::sqrt(flat + 1e-12F);  // straight up has no azimuth
    const float up = -dy * inverse;
    s.elevation[i] = arcsine(up);
    const float spread = 1.2F / (std::fabs(up) + 0.12F);
    s.cloud_x[i] = spread * dx * inverse;
    s.cloud_z[i] = spread * dz * inverse;
    s.cloud_footprint[i] = spread * spacing;
    s.ridge_x[i] = dz * around;
    s.ridge_z[i] = dx * around;
    s.rock_y[i] = s.elevation[i];
    b.footprint[i] = spacing;
  }
}

}  // namespace

MINWM_KERNEL void shade_pattern(Batch& batch, int n, const Texture& texture, bool on_ground) {
  Batch& b = batch;
  const uint32_t seed = texture.seed;
  switch (texture.pattern) {
    case Pattern::kPlain:
      surface_fbm(b, n, {3, 3, 3}, 3, seed, on_ground);
      for (int i = 0; i < n; ++i) {
        b.blend[i] = 0.25F * b.noise[i];
      }
      break;
    case Pattern::kCheckered:
      two_valued(b, n, texture, on_ground, 2, 0.5F, [](float x, float y, float z) {
        return static_cast<float>(
            (floor_to_int(4 * x) + floor_to_int(4 * y) + floor_to_int(4 * z)) & 1);
      });
      break;
    case Pattern::kStriped:
      two_valued(b, n, texture, on_ground, 2.5F, 0.5F, [](float x, float y, float z) {
        return static_cast<float>(floor_to_int(5 * (x + y + z)) & 1);
      });
      break;
    case Pattern::kDotted:
      two_valued(b, n, texture, on_ground, 4, 0.27F, [](float x, float y, float z) {
        const float u = fraction(4 * x) - 0.5F;
        const float v = fraction(4 * y) - 0.5F;
        const float w = fraction(4 * z) - 0.5F;
        return u * u + v * v + w * w < 0.16F ? 1.F : 0.F;
      });
      break;
    case Pattern::kMottled:
      surface_fbm(b, n, {2.5F, 2.5F, 2.5F}, 5, seed, on_ground);
      for (int i = 0; i < n; ++i) {
        b.blend[i] = clamp_unit(0.5F + 2.2F * (b.noise[i] - 0.5F));
      }
      break;
    case Pattern::kBrick:
      surface_fbm(b, n, {6, 6, 6}, 3, seed, on_ground);
      cell_valued(b, n, 2, [seed](float x, float z) {
        const int32_t row = floor_to_int(3 * z);
        const float shift = 0.5F * static_cast<float>(row & 1);
        return lattice_value(floor_to_int(2 * x + shift), 0, row, seed + 8);
      });
      break;
    case Pattern::kPlank:
      surface_fbm(b, n, {12, 1, 2}, 4, seed, on_ground);
      cell_valued(b, n, 2, [seed](float x, float z) {
        const int32_t board = floor_to_int(3 * x);
        const float offset = lattice_value(board, 0, 0, seed + 8);
        return lattice_value(board, 0, floor_to_int(0.7F * z + offset), seed + 9);
      });
      break;
  }
}

MINWM_KERNEL void shade_surface(Batch& batch, int n, const Texture& texture, const Sky& sky,
                                float gain) {
  float first[3];
  float step[3];
  for (int c = 0; c < 3; ++c) {
    first[c] = gain * texture.first[c];
    step[c] = gain * texture.second[c] - first[c];
  }
  for (int i = 0; i < n; ++i) {
    const float clear = decay(batch.t[i] * (1 / kFogLength));
    const float lit = clear * batch.light[i];
    const float fog = 1 - clear;
    batch.red[i] = lit * (first[0] + batch.blend[i] * step[0]) + fog * sky.horizon[0];
    batch.green[i] = lit * (first[1] + batch.blend[i] * step[1]) + fog * sky.horizon[1];
    batch.blue[i] = lit * (first[2] + batch.blend[i] * step[2]) + fog * sky.horizon[2];
  }
}

MINWM_KERNEL void shade_sky(Batch& batch, SkyBatch& extra, int n, const RayFrame& frame,
                            const Sky& sky, float ray_spacing) {
  Batch& b = batch;
  SkyBatch& s = extra;
  place_sky(b, s, n, frame, ray_spacing);
  fbm_plane(s.cloud_x, s.cloud_z, s.cloud_footprint, n, {{1, 0, 1}, 4, sky.seed}, s.clouds);
  for (int i = 0; i < n; ++i) {
    const float e = s.elevation[i];
    const float up = power_0_6(clamp_unit(e * (1 / kHalfPi)));
    const float cover = 0.6F * clamp_unit(4 * (s.clouds[i] - 0.5F)) * clamp_unit(6 * e);
    const float open = 1 - cover;
    b.red[i] = open * (sky.horizon[0] + up * (sky.zenith[0] - sky.horizon[0])) + cover;
    b.green[i] = open * (sky.horizon[1] + up * (sky.zenith[1] - sky.horizon[1])) + cover;
    b.blue[i] = open * (sky.horizon[2] + up * (sky.zenith[2] - sky.horizon[2])) + cover;
  }

  int32_t rays_below_peaks = 0;
  for (int i = 0; i < n; ++i) {
    rays_below_peaks += s.elevation[i] < 1.6F * sky.mountain_height ? 1 : 0;
  }
  if (rays_below_peaks == 0) {
    return;
  }
  fbm_plane(s.ridge_x, s.ridge_z, b.footprint, n, {{6, 0, 6}, 4, sky.seed + 16}, s.ridge);
  fbm_space(s.ridge_x, s.rock_y, s.ridge_z, b.footprint, n, {{20, 28, 20}, 3, sky.seed + 32},
            s.rock);
  for (int i = 0; i < n; ++i) {
    const bool rock = s.elevation[i] < sky.mountain_height * (0.4F + 1.2F * s.ridge[i]);
    const float share = rock ? 1.F : 0.F;
    const float shade = 0.66F + 0.68F * s.rock[i];
    b.red[i] += share * (shade * (0.5F * sky.horizon[0] + 0.175F) - b.red[i]);
    b.green[i] += share * (shade * (0.5F * sky.horizon[1] + 0.185F) - b.green[i]);
    b.blue[i] += share * (shade * (0.5F * sky.horizon[2] + 0.2F) - b.blue[i]);
  }
}

}  // namespace minwm::data
