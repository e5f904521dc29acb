// Where rays meet the ground and the objects, and the place and light at the hit.

#include <cmath>
#include <limits>

#include "world_kernels.h"
#include "world_noise.h"

namespace minwm::data {
namespace {

constexpr float kNearest = 1e-3F;

struct Vector {
  float x, y, z;
};

MINWM_FORCE_INLINE Vector direction(const RayFrame& f, float x, float y) {
  return {x * f.right[0] + y * f.down[0] + f.forward[0],
          x * f.right[1] + y * f.down[1] + f.forward[1],
          x * f.right[2] + y * f.down[2] + f.forward[2]};
}

MINWM_FORCE_INLINE float dot(Vector a, Vector b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

MINWM_FORCE_INLINE float smaller(float a, float b) {
  return a < b ? a : b;
}

MINWM_FORCE_INLINE float larger(float a, float b) {
  return a > b ? a : b;
}

/// A ray parallel to a face is moved off parallel by less than any pixel: its quotient is then
/// finite and of the right sign, and no 0 * inf decides a hit.
MINWM_FORCE_INLINE float off_zero(float d) {
  return std::fabs(d) < 1e-12F ? 1e-12F : d;
}

MINWM_FORCE_INLINE void keep_nearest(Tile& tile, int i, bool hit, float t, int32_t id) {
  const bool nearer = hit & (t > kNearest) & (t < tile.t[i]);
  tile.t[i] = nearer ? t : tile.t[i];
  tile.id[i] = nearer ? id : tile.id[i];
}

struct Interval {
  float enter, leave;
};

/// Where the ray o + t d is between -half and half.
MINWM_FORCE_INLINE Interval slab(float o, float d, float half) {
  const float inverse = 1 / off_zero(d);
  const float a = (-half - o) * inverse;
  const float b = (half - o) * inverse;
  return {smaller(a, b), larger(a, b)};
}

struct PillarHit {
  float side, top;  ///< kNoHit where missed
};

MINWM_FORCE_INLINE PillarHit meet_pillar(const Solid& s, Vector d) {
  const float* o = s.frame.origin;
  const float a = larger(d.x * d.x + d.z * d.z, 1e-12F);
  const float b = o[0] * d.x + o[2] * d.z;
  const float c = o[0] * o[0] + o[2] * o[2] - s.half_width * s.half_width;
  const float discriminant = b * b - a * c;
  const float side = (-b - std::sqrt(larger(discriminant, 0))) / a;
  const bool on_side =
      (discriminant > 0) & (side > kNearest) & (std::fabs(o[1] + side * d.y) <= s.half_height);
  // y points down: the top disc is at -half_height and only seen by rays that go down.
  const float top = (-s.half_height - o[1]) / off_zero(d.y);
  const float x = o[0] + top * d.x;
  const float z = o[2] + top * d.z;
  const bool on_top = (d.y > 0) & (top > kNearest) & (x * x + z * z <= s.half_width * s.half_width);
  return {on_side ? side : kNoHit, on_top ? top : kNoHit};
}

/// Size of a pixel on a surface seen at a slant.
MINWM_FORCE_INLINE float footprint(float t, float pixel, float cosine) {
  return t * pixel / std::sqrt(cosine + 0.02F);
}

/// Fills texture coordinates, footprint and light from a hit with normal n.
MINWM_FORCE_INLINE void locate(Batch& b, int i, const Solid& s, Vector d, Vector q, Vector n,
                               float pixel) {
  b.qx[i] = q.x;
  b.qy[i] = q.y;
  b.qz[i] = q.z;
  const float cosine = std::fabs(dot(n, d)) / std::sqrt(dot(d, d));
  b.footprint[i] = footprint(b.t[i], pixel, cosine);
  b.light[i] = 0.55F + 0.55F * larger(0, dot(n, {s.sun[0], s.sun[1], s.sun[2]}));
}

MINWM_FORCE_INLINE Vector point(const RayFrame& f, float t, Vector d) {
  return {f.origin[0] + t * d.x, f.origin[1] + t * d.y, f.origin[2] + t * d.z};
}

}  // namespace

MINWM_KERNEL void trace_ground(Tile& tile, int n, const RayFrame& frame, float height) {
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(frame, tile.x[i], tile.y[i]);
    // d.y = 0 gives an infinite t or NaN: both fail the test.
    const float t = (height - frame.origin[1]) / d.y;
    keep_nearest(tile, i, t < kGroundEnd, t, 1);
  }
}

MINWM_KERNEL void trace_box(Tile& tile, int n, const Solid& solid, int32_t id) {
  const float* o = solid.frame.origin;
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(solid.frame, tile.x[i], tile.y[i]);
    const Interval x = slab(o[0], d.x, solid.half_width);
    const Interval y = slab(o[1], d.y, solid.half_height);
    const Interval z = slab(o[2], d.z, solid.half_width);
    const float enter = larger(larger(x.enter, y.enter), z.enter);
    const float leave = smaller(smaller(x.leave, y.leave), z.leave);
    keep_nearest(tile, i, enter <= leave, enter, id);
  }
}

MINWM_KERNEL void trace_pillar(Tile& tile, int n, const Solid& solid, int32_t id) {
  for (int i = 0; i < n; ++i) {
    const PillarHit hit = meet_pillar(solid, direction(solid.frame, tile.x[i], tile.y[i]));
    keep_nearest(tile, i, true, smaller(hit.side, hit.top), id);
  }
}

MINWM_KERNEL void trace_ball(Tile& tile, int n, const Solid& solid, int32_t id) {
  const Vector o = {solid.frame.origin[0], solid.frame.origin[1], solid.frame.origin[2]};
  const float c = dot(o, o) - solid.half_width * solid.half_width;
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(solid.frame, tile.x[i], tile.y[i]);
    const float a = dot(d, d);
    const float b = dot(o, d);
    const float discriminant = b * b - a * c;
    const float t = (-b - std::sqrt(larger(discriminant, 0))) / a;
    keep_nearest(tile, i, discriminant > 0, t, id);
  }
}

MINWM_KERNEL void locate_ground(Batch& batch, int n, const RayFrame& frame, float pixel,
                                const Sky& sky) {
  const float light = 0.55F + 0.55F * larger(0, -sky.sun[1]);
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(frame, batch.x[i], batch.y[i]);
    batch.qx[i] = frame.origin[0] + batch.t[i] * d.x;
    batch.qy[i] = 0;
    batch.qz[i] = frame.origin[2] + batch.t[i] * d.z;
    batch.footprint[i] = footprint(batch.t[i], pixel, std::fabs(d.y) / std::sqrt(dot(d, d)));
    batch.light[i] = light;
  }
}

MINWM_KERNEL void locate_box(Batch& batch, int n, const Solid& solid, float pixel) {
  const float* o = solid.frame.origin;
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(solid.frame, batch.x[i], batch.y[i]);
    // The same arithmetic as trace_box: the slab entered last is the face that was hit.
    const float x = slab(o[0], d.x, solid.half_width).enter;
    const float y = slab(o[1], d.y, solid.half_height).enter;
    const float z = slab(o[2], d.z, solid.half_width).enter;
    const float on_x = (x >= y) & (x >= z) ? 1.F : 0.F;
    const float on_y = (y > x) & (y >= z) ? 1.F : 0.F;
    const float on_z = 1 - on_x - on_y;
    const Vector normal = {-on_x * std::copysign(1.F, d.x), -on_y * std::copysign(1.F, d.y),
                           -on_z * std::copysign(1.F, d.z)};
    locate(batch, i, solid, d, point(solid.frame, batch.t[i], d), normal, pixel);
  }
}

MINWM_KERNEL void locate_pillar(Batch& batch, int n, const Solid& solid, float pixel) {
  const float inverse = 1 / solid.half_width;
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(solid.frame, batch.x[i], batch.y[i]);
    const PillarHit hit = meet_pillar(solid, d);
    const bool on_top = hit.top < hit.side;
    const Vector q = point(solid.frame, batch.t[i], d);
    const Vector normal = {on_top ? 0.F : q.x * inverse, on_top ? -1.F : 0.F,
                           on_top ? 0.F : q.z * inverse};
    locate(batch, i, solid, d, q, normal, pixel);
  }
}

MINWM_KERNEL void locate_ball(Batch& batch, int n, const Solid& solid, float pixel) {
  const float inverse = 1 / solid.half_width;
  for (int i = 0; i < n; ++i) {
    const Vector d = direction(solid.frame, batch.x[i], batch.y[i]);
    const Vector q = point(solid.frame, batch.t[i], d);
    locate(batch, i, solid, d, q, {q.x * inverse, q.y * inverse, q.z * inverse}, pixel);
  }
}

}  // namespace minwm::data
