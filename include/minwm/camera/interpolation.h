#pragma once
// Cameras known at some video frames only. Spec data-camera-eval 7.

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::camera {

/// Poses at `targets` from poses at `frames`: translation of world_to_camera linear, rotation by
/// slerp between the neighbours; targets outside the range take the end pose.
/// @param poses7  [N, 7] world_to_camera (poses.h). @param frames  strictly increasing, N of them.
/// @return        [targets, 7] float32.
/// @throws Error if the sizes differ, N = 0 or frames are not strictly increasing.
at::Tensor interpolate_poses7(const at::Tensor& poses7, const std::vector<int64_t>& frames,
                              const std::vector<int64_t>& targets);

/// Picks `count` = 4 n + 1 video frames so that every latent frame ends on a frame with a known
/// camera: the middle n + 1 consecutive cameras, and between two the three nearest frames (half to
/// even). Nothing if fewer than n + 1 cameras are known.
/// @throws Error if count is not 4 n + 1 or `cameras` is not strictly increasing.
std::optional<std::vector<int64_t>> pick_frames(const std::vector<int64_t>& cameras, int64_t count);

}  // namespace minwm::camera
