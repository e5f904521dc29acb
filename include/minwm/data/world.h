#pragma once
// Procedural worlds: exact video, depth and captions from a seed (spec data-camera-eval 13,
// tiny-world 2).

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::data {

struct WorldStyle {
  std::string name = "detail";  ///< "detail" (10 objects, all textures) or "standard" (14 objects)
  int64_t width = 64, height = 64;
  int64_t samples = 2;             ///< s x s rays per pixel, 1 to 4
  double fx = 0.5050505050505051;  ///< focal length over width; fy follows from square pixels
};

/// A scene generated from a seed; immutable; safe to render from several threads.
/// @throws Error on an unknown style name, a size beyond 1 to 8192, samples or fx out of range.
class World;
std::shared_ptr<const World> make_world(uint64_t seed, const WorldStyle& style);

struct Rendered {
  at::Tensor pixels;   ///< uint8 [F, H, W, 3]
  at::Tensor depth;    ///< float32 [F, H, W], z-depth, 0 = sky; undefined unless asked for
  at::Tensor objects;  ///< int32 [F, H, W], 0 = sky, 1 = ground, 2 + i = object i; undefined unless
                       ///< asked for
};

/// Renders one frame per pose. camera_to_world [F, 4, 4] float64. Depth and objects are those of
/// the pixels' centres. The same bytes on any number of threads and any x86-64 processor.
/// @throws Error on poses that are not rigid, not finite or further than 10000 units from the
/// start.
Rendered render(const World& world, const at::Tensor& camera_to_world, bool with_depth = false);

/// One pose per video frame from one pose per latent frame: [T, 4, 4] → [1 + 4 (T - 1), 4, 4],
/// translation linear, rotation by slerp, at fractions 1/4 … 4/4. @throws Error on poses that are
/// not rigid.
at::Tensor interpolate_latent_poses(const at::Tensor& camera_to_world);

/// The caption of the first view (no motion words): ground, sky and up to four nearest objects of
/// which at least 3 pixels of a 64-pixel wide view can be seen. One of three wordings.
std::string caption(const World& world);

/// A random pose string of `steps` motions for `index`-th trajectory of a world seed (tiny-world
/// 2).
/// @throws Error if index < 0 or steps < 1.
std::string random_trajectory(uint64_t seed, int64_t index, int64_t steps);

/// The text condition of the embedded default: 6 tokens of 32 numbers from the caption's phrases
/// (ground, sky, four nearest objects); word vectors seeded by CRC-32. Takes any text: phrases end
/// at punctuation and words like "with"; beyond four objects they share the tokens; "" gives zeros.
/// [6, 32] float32.
at::Tensor caption_embedding(const std::string& caption);

}  // namespace minwm::data
