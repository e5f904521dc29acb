#include "minwm/eval/commanded.h"

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "pose.h"

namespace minwm::eval {
namespace {

// A motion as the motion model applies it: rotate first, then move along the new axes.
struct Step {
  cv::Vec3d rotation, move;
};

Step step_between(const Pose& from, const Pose& to) {
  const Pose motion = from.inverse() * to;
  return {rotation_vector(motion.rotation), motion.rotation.t() * motion.translation};
}

Pose apply(const Pose& from, const Step& step) {
  const cv::Matx33d rotation = rotation_matrix(step.rotation);
  return from * Pose{rotation, rotation * step.move};
}

std::vector<Step> steps_after(const std::vector<Pose>& poses, int64_t given) {
  std::vector<Step> steps;
  for (size_t i = static_cast<size_t>(given); i < poses.size(); ++i) {
    steps.push_back(step_between(poses[i - 1], poses[i]));
  }
  return steps;
}

at::Tensor with_steps(std::vector<Pose> poses, int64_t given, const std::vector<Step>& steps) {
  for (size_t i = static_cast<size_t>(given); i < poses.size(); ++i) {
    poses[i] = apply(poses[i - 1], steps[i - static_cast<size_t>(given)]);
  }
  return to_tensor(poses);
}

at::Tensor fit_length(const at::Tensor& poses, int64_t frames) {
  if (poses.size(0) >= frames) {
    return poses.narrow(0, 0, frames).clone();
  }
  return at::cat({poses, poses.slice(0, -1).expand({frames - poses.size(0), 4, 4})});
}

}  // namespace

Commanded command_clip(uint64_t world_seed, const data::WorldStyle& style, int64_t latent_frames,
                       int64_t given, const std::string& trajectory) {
  require(given >= 1 && given < latent_frames,
          "a clip of {} latent frames cannot have {} given ones", latent_frames, given);
  Commanded clip;
  clip.name = fmt::format("world {}", world_seed);
  clip.trajectory =
      trajectory.empty() ? data::random_trajectory(world_seed, 0, latent_frames - 1) : trajectory;
  clip.world_seed = world_seed;
  clip.world = data::make_world(world_seed, style);
  clip.style = style;
  clip.camera_to_world =
      fit_length(camera::integrate(camera::parse_pose_string(clip.trajectory)), latent_frames);
  clip.given = given;
  return clip;
}

at::Tensor render_truth(const Commanded& clip) {
  return data::render(*clip.world, data::interpolate_latent_poses(clip.camera_to_world)).pixels;
}

at::Tensor latent_time_frames(const at::Tensor& frames) {
  require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte &&
              frames.size(0) % 4 == 1,
          "video: expected uint8 [1 + 4 n, H, W, 3]");
  return frames.slice(0, 0, frames.size(0), 4).contiguous();
}

at::Tensor scaled_path(const at::Tensor& camera_to_world, int64_t given, double scale) {
  const auto poses = to_poses(camera_to_world);
  auto steps = steps_after(poses, given);
  for (auto& step : steps) {
    step.rotation *= scale;
    step.move *= scale;
  }
  return with_steps(poses, given, steps);
}

at::Tensor delayed_path(const at::Tensor& camera_to_world, int64_t given, int64_t latents) {
  const auto poses = to_poses(camera_to_world);
  auto steps = steps_after(poses, given);
  steps.insert(steps.begin(), static_cast<size_t>(latents), Step{});
  return with_steps(poses, given, steps);
}

at::Tensor other_path(const at::Tensor& camera_to_world, int64_t given,
                      const std::string& trajectory) {
  const auto poses = to_poses(camera_to_world);
  const auto other = to_poses(fit_length(camera::integrate(camera::parse_pose_string(trajectory)),
                                         camera_to_world.size(0) - given + 1));
  return with_steps(poses, given, steps_after(other, 1));
}

std::vector<int> commanded_keys(const at::Tensor& camera_to_world) {
  constexpr double kMove = camera::kStep, kTurn = camera::kRotationStep;
  const std::array<Step, 9> steps = {
      Step{{}, {0, 0, kMove}}, Step{{}, {0, 0, -kMove}}, Step{{}, {-kMove, 0, 0}},
      Step{{}, {kMove, 0, 0}}, Step{{0, -kTurn, 0}, {}}, Step{{0, kTurn, 0}, {}},
      Step{{kTurn, 0, 0}, {}}, Step{{-kTurn, 0, 0}, {}}, Step{}};
  const auto poses = to_poses(camera_to_world);
  std::vector<int> keys(poses.size(), -1);
  for (size_t i = 1; i < poses.size(); ++i) {
    const Step step = step_between(poses[i - 1], poses[i]);
    for (size_t key = 0; key < steps.size(); ++key) {
      if (cv::norm(step.rotation - steps[key].rotation) < 1e-3 &&
          cv::norm(step.move - steps[key].move) < 1e-3) {
        keys[i] = static_cast<int>(key);
      }
    }
  }
  return keys;
}

}  // namespace minwm::eval
