// Cameras of the HY line: stored poses, trajectories, memory frames. Spec hy-mmdit 20.

#include "camera_case.h"
#include "minwm/camera/action_labels.h"
#include "minwm/camera/compat_pose_string.h"
#include "minwm/camera/memory.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"

namespace minwm::golden {
namespace {

void replay_poses(const Case& c, Report& report) {
  const auto cameras = camera::cameras_from_poses7(c.in("poses"), c.in("intrinsics"));
  report.compare("viewmats", cameras.world_to_camera[0], c.out("viewmats"));
  report.compare("Ks", cameras.intrinsics[0], c.out("Ks"));
  report.equal("action", camera::action_labels(cameras.world_to_camera[0]), c.out("action"));
}

/// The motions of a star string at the case's own step and turn.
std::vector<camera::Motion> motions(const Case& c, const std::string& text) {
  constexpr double kDegree = 0.017453292519943295;
  const double step = c.config.at("step").get<double>() / camera::kStep;
  const double turn = c.config.at("rot_step_deg").get<double>() * kDegree / camera::kRotationStep;
  auto path = camera::parse_star_string(text, camera::StarProgram::kHy);
  for (auto& motion : path) {
    for (double* move : {&motion.forward, &motion.right, &motion.up}) {
      *move *= step;
    }
    for (double* angle : {&motion.yaw, &motion.pitch, &motion.third_person_yaw}) {
      *angle *= turn;
    }
  }
  return path;
}

void replay_trajectory(const Case& c, Report& report) {
  const auto text = c.config.at("trajectory").get<std::string>();
  const auto k = [&](const char* key) { return c.config.at(key).get<double>(); };
  const at::Tensor views = camera::invert_poses(camera::integrate(motions(c, text)));
  report.compare("viewmats", views.to(at::kFloat), c.out("viewmats"));
  report.compare("Ks",
                 camera::intrinsics_matrices(k("fx"), k("fy"), k("cx"), k("cy"), views.size(0)),
                 c.out("Ks"));
  report.equal("action_pose", camera::action_labels(views), c.out("action_pose"));
  report.equal("action_string", string_labels(text, views.size(0)), c.out("action_string"));
}

void replay_memory(const Case& c, Report& report) {
  const at::Tensor views = c.in("w2c"), points = c.in("points_local"), pairs = c.in("pairs");
  camera::MemoryOptions options;
  options.memory_frames = c.config.at("memory_frames").get<int64_t>();
  options.temporal_context = c.config.at("temporal_context_size").get<int64_t>();
  options.predicted_frames = c.config.at("pred_latent_size").get<int64_t>();
  options.view_width = c.config.at("fov_h_deg").get<double>();
  options.view_height = c.config.at("fov_v_deg").get<double>();
  options.radius = c.config.at("max_dist").get<double>();
  for (const int64_t current : c.config.at("current").get<std::vector<int64_t>>()) {
    const std::string name = "selected/" + std::to_string(current);
    const auto selected = camera::select_memory(views, current, points, options);
    report.equal(name, at::tensor(selected, at::kLong), c.out(name));
  }
  std::vector<double> overlaps;
  for (int64_t i = 0; i < pairs.size(0); ++i) {
    overlaps.push_back(camera::view_overlap(views[pairs[i][0].item<int64_t>()],
                                            views[pairs[i][1].item<int64_t>()], points, options));
  }
  report.compare("overlap", at::tensor(overlaps, at::kDouble), c.out("overlap"));
}

const bool registered[] = {register_kind("hy.camera.poses", replay_poses),
                           register_kind("hy.camera.trajectory", replay_trajectory),
                           register_kind("hy.memory.select", replay_memory)};

}  // namespace
}  // namespace minwm::golden
