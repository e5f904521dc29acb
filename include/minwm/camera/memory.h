#pragma once
// Which past latent frames to attend to: those that saw the same places. Spec data-camera-eval 8.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/core/random.h"

namespace minwm::camera {

struct MemoryOptions {
  int64_t memory_frames = 20;     ///< frames selected in all (more if they do not hold the rest)
  int64_t temporal_context = 12;  ///< of these, the last frames before the current one
  int64_t predicted_frames = 4;   ///< the chunk that will attend to them
  double view_width = 60;         ///< degrees
  double view_height = 35;        ///< degrees
  double radius = 8;              ///< world units a camera sees
};

/// `count` points uniform in a ball: [count, 3] float32. Draw once, use for all selections.
at::Tensor points_in_ball(int64_t count, double radius, const RandomKey& key);

/// Share of the points in the current camera's view that the historic camera sees too, 0 if none.
/// world_to_camera [4, 4] each; points [n, 3] around the current camera.
double view_overlap(const at::Tensor& current, const at::Tensor& historic, const at::Tensor& points,
                    const MemoryOptions& options = {});

/// The frames that the chunk starting at `current` attends to, in increasing order: the last
/// temporal_context ones, the first chunk, and the chunks whose views overlap most.
/// world_to_camera [T, 4, 4], 0 <= current < T. Golden kind camera.memory.select.
std::vector<int64_t> select_memory(const at::Tensor& world_to_camera, int64_t current,
                                   const at::Tensor& points, const MemoryOptions& options = {});

}  // namespace minwm::camera
