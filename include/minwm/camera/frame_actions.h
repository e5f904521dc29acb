#pragma once
// Trajectories per video frame: the HY line's random path generator. Spec data-camera-eval 2.4.
//
// One upper-case letter per frame transition, a quarter of a latent step each: W S A D move 0.02,
// L / J turn right / left 0.75 degrees. K tilts up and I down: the reverse of every other spelling,
// kept because published files were made with it.

#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::camera {

/// [1 + letters, 4, 4] float64 camera_to_world, one pose per video frame, the first = identity.
/// @throws Error naming the letter and its position.
at::Tensor integrate_frame_actions(const std::string& actions);

/// Frames 0, 4, 8, ...: the poses of the latent frames.
at::Tensor latent_poses(const at::Tensor& frame_poses);

struct ActionBlock {
  char action;
  int64_t frames;
};

/// Draws a path of `pixel_frames` - 1 transitions. `uniform` gives numbers in [0, 1), one per
/// block.
std::vector<ActionBlock> random_action_blocks(int64_t pixel_frames,
                                              const std::function<double()>& uniform);

/// "WWWW...JJJJ".
std::string to_action_string(const std::vector<ActionBlock>& blocks);
/// The generator's own export, `left-8, s-4`: a block of n frames counts n / 4 latents. It names I
/// "up" and K "down", against its matrices.
std::string to_dash_string(const std::vector<ActionBlock>& blocks);

}  // namespace minwm::camera
