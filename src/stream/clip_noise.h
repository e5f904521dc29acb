#pragma once

#include "minwm/camera/poses.h"
#include "minwm/core/random.h"

namespace minwm::stream {

/// Standard normal of shape [B, …]: row b is addressed by (seed, purpose, chunk, b, step), so a
/// clip's noise does not depend on how many are generated side by side.
inline at::Tensor clip_noise(uint64_t seed, std::string_view purpose, int64_t chunk, int64_t step,
                             at::IntArrayRef shape) {
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < shape.front(); ++b) {
    rows.push_back(
        random_normal(shape.slice(1), {seed, purpose, static_cast<uint64_t>(chunk),
                                       static_cast<uint64_t>(b), static_cast<uint64_t>(step)}));
  }
  return at::stack(rows);
}

/// Poses [n, 4, 4] or [B, n, 4, 4] camera_to_world float64 → cameras of B clips on `device`.
inline camera::Cameras stream_cameras(const at::Tensor& camera_to_world, int64_t batch, double fx,
                                      double fy, const at::Device& device) {
  const at::Tensor poses =
      camera_to_world.dim() == 3 ? camera_to_world.unsqueeze(0) : camera_to_world;
  const int64_t frames = poses.size(1);
  const at::Tensor views = camera::invert_poses(poses.flatten(0, 1)).view({-1, frames, 4, 4});
  const at::Tensor intrinsics = camera::intrinsics_matrices(fx, fy, 0.5, 0.5, frames);
  return {views.to(at::kFloat).expand({batch, frames, 4, 4}).contiguous().to(device),
          intrinsics.to(at::kFloat).expand({batch, frames, 3, 3}).contiguous().to(device)};
}

}  // namespace minwm::stream
