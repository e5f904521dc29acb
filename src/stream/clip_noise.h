#pragma once

#include "minwm/core/random.h"

namespace minwm::stream {

/// Standard normal [B, …shape]: row b is addressed by (seed, purpose, chunk, b, step), so a clip's
/// noise does not depend on how many are generated side by side.
inline at::Tensor clip_noise(uint64_t seed, std::string_view purpose, int64_t chunk, int64_t step,
                             int64_t batch, std::vector<int64_t> shape) {
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < batch; ++b) {
    rows.push_back(random_normal(shape, {seed, purpose, static_cast<uint64_t>(chunk),
                                         static_cast<uint64_t>(b), static_cast<uint64_t>(step)}));
  }
  return at::stack(rows);
}

/// Poses [n, 4, 4] or [B, n, 4, 4] camera_to_world float64 → cameras of B clips on `device`.
inline camera::Cameras stream_cameras(const at::Tensor& camera_to_world, int64_t batch, double fx,
                                      double fy, const at::Device& device) {
  at::Tensor poses = camera_to_world.dim() == 3 ? camera_to_world.unsqueeze(0) : camera_to_world;
  const int64_t frames = poses.size(1);
  // Rigid inverse in float64: R^T, -R^T t.
  at::Tensor rotation = poses.narrow(2, 0, 3).narrow(3, 0, 3).transpose(2, 3);
  at::Tensor inverse = at::zeros_like(poses);
  inverse.narrow(2, 0, 3).narrow(3, 0, 3).copy_(rotation);
  inverse.narrow(2, 0, 3).narrow(3, 3, 1).copy_(
      -at::matmul(rotation, poses.narrow(2, 0, 3).narrow(3, 3, 1)));
  inverse.narrow(2, 3, 1).narrow(3, 3, 1).fill_(1);
  at::Tensor intrinsics = at::zeros({batch, frames, 3, 3});
  intrinsics.select(2, 0).select(2, 0).fill_(fx);
  intrinsics.select(2, 1).select(2, 1).fill_(fy);
  intrinsics.narrow(2, 0, 2).select(3, 2).fill_(0.5);
  intrinsics.select(2, 2).select(2, 2).fill_(1);
  return {inverse.to(at::kFloat).expand({batch, frames, 4, 4}).contiguous().to(device),
          intrinsics.to(device)};
}

}  // namespace minwm::stream
