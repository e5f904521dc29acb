// Labels, sparse poses, random paths, RealEstate10K, memory retrieval. Spec data-camera-eval 16.

#include "camera_case.h"
#include "minwm/camera/action_labels.h"
#include "minwm/camera/frame_actions.h"
#include "minwm/camera/interpolation.h"
#include "minwm/camera/memory.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/camera/re10k.h"

namespace minwm::golden {
namespace {

using namespace camera;  // NOLINT(google-build-using-namespace): the words of these cases

std::vector<int64_t> integers(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kLong).contiguous();
  const int64_t* first = host.const_data_ptr<int64_t>();
  return {first, first + host.numel()};
}

void replay_actions(const Case& c, Report& report) {
  const std::string suffix = "/w2c";
  for (const std::string& name : c.under("in/")) {
    require(name.ends_with(suffix), "unexpected input '{}'", name);
    const std::string tag = name.substr(0, name.size() - suffix.size());
    const auto labels = [&](const char* key) {
      return action_labels(c.in(name), c.config.at(key).get<double>());
    };
    report.equal(tag + "/labels_train", labels("train_move_threshold"),
                 c.out(tag + "/labels_train"));
    report.equal(tag + "/labels_infer", labels("infer_move_threshold"),
                 c.out(tag + "/labels_infer"));
  }
  report.check("thresholds",
               c.config.at("train_move_threshold").get<double>() == kTrainingMoveThreshold &&
                   c.config.at("infer_move_threshold").get<double>() == kInferenceMoveThreshold,
               "our constants differ");
}

void replay_interpolate(const Case& c, Report& report) {
  const at::Tensor poses = interpolate_poses7(c.in("poses"), integers(c.in("camera_indices")),
                                              integers(c.in("target_indices")));
  report.compare("poses", match_signs(poses, c.out("poses")), c.out("poses"));
  const Cameras cameras = cameras_from_poses7(c.in("poses"), c.in("intrinsics"));
  report.compare("viewmats", cameras.world_to_camera[0], c.out("viewmats"));
  report.compare("Ks", cameras.intrinsics[0], c.out("Ks"));
  const auto counts = c.config.at("max_frames").get<std::vector<int64_t>>();
  for (size_t j = 0; j < counts.size(); ++j) {
    const std::string at = "frames" + std::to_string(j) + "/";
    auto known = integers(c.in(at + "camera_indices"));
    const auto frames = pick_frames(known, counts[j]);
    if (c.has("out/" + at + "frame_indices")) {
      report.check(at, frames.has_value(), "no frames were picked");
      report.equal(at + "frame_indices", at::tensor(frames.value(), at::kLong),
                   c.out(at + "frame_indices"));
    } else {
      report.check(at, !frames.has_value(), "frames were picked");
    }
    known.resize(std::min(known.size(), static_cast<size_t>((counts[j] - 1) / 4)));
    report.check(at + "too few", pick_frames(known, counts[j]).has_value() !=
                                     c.config.at("too_few_returns_none").get<bool>());
  }
}

void replay_random(const Case& c, Report& report) {
  const auto frames = c.config.at("num_frames").get<std::vector<int64_t>>();
  for (size_t i = 0; i < frames.size(); ++i) {
    const std::string at = std::to_string(i) + "/";
    const at::Tensor uniforms = c.in(at + "uniforms").to(at::kDouble);
    int64_t used = 0;
    const auto blocks = random_action_blocks(frames[i], [&] {
      require(used < uniforms.numel(), "path {} draws more numbers than the reference", i);
      return uniforms[used++].item<double>();
    });
    report.check(at + "uniforms", used == uniforms.numel(), "drew " + std::to_string(used));
    const auto text = [&](const char* key) { return c.config.at(key)[i].get<std::string>(); };
    const std::string actions = to_action_string(blocks);
    report.check(at + "action_strings", actions == text("action_strings"), actions);
    std::string listed;
    for (const ActionBlock& block : blocks) {
      listed += (listed.empty() ? "" : ",") + std::string(1, block.action) + "*" +
                std::to_string(block.frames);
    }
    report.check(at + "blocks", listed == text("blocks"), listed);
    report.check(at + "pose_str", to_dash_string(blocks) == text("pose_str"),
                 to_dash_string(blocks));

    const at::Tensor poses = latent_poses(integrate_frame_actions(actions));
    report.compare(at + "latent_c2w", poses, c.out(at + "latent_c2w"));
    const at::Tensor views = invert_poses(poses.slice(0, 1));  // upstream drops frame 0
    report.compare(at + "pipeline_viewmats", views.to(at::kFloat), c.out(at + "pipeline_viewmats"));
    report.compare(at + "pipeline_Ks",
                   intrinsics_matrices(kDefaultFx, kDefaultFy, 0.5, 0.5, views.size(0)),
                   c.out(at + "pipeline_Ks"));
    report.equal(at + "pipeline_labels", action_labels(views, kInferenceMoveThreshold),
                 c.out(at + "pipeline_labels"));
  }
}

void replay_re10k(const Case& c, Report& report) {
  const Re10kClip clip = parse_re10k(c.config.at("text").get<std::string>(), "clip");
  const auto size = c.config.at("sample_size").get<std::vector<int64_t>>();
  const auto original = c.config.at("original_hw").get<std::vector<double>>();
  report.equal("timestamps_us", clip.timestamps_us, c.out("timestamps_us"));
  report.compare("intrinsics", clip.intrinsics, c.out("intrinsics"));
  report.compare("w2c", clip.world_to_camera, c.out("w2c"));
  const at::Tensor poses = invert_poses(clip.world_to_camera);
  report.compare("c2w", poses, c.out("c2w"));

  const auto rays = [&](const std::string& name, const at::Tensor& c2w, const at::Tensor& k) {
    report.compare(name + "/plucker", pluecker_rays(c2w, k, size[1], size[0]),
                   c.out(name + "/plucker"));
  };
  const at::Tensor zero = relative_poses(clip.world_to_camera, FirstCamera::kOrigin);
  const at::Tensor distance = relative_poses(clip.world_to_camera, FirstCamera::kKeepDistance);
  report.compare("rel_zero/c2w", zero, c.out("rel_zero/c2w"));
  report.compare("rel_dist/c2w", distance, c.out("rel_dist/c2w"));
  report.compare("rescaled/c2w", zero, c.out("rescaled/c2w"));
  rays("abs", poses, clip.intrinsics);
  rays("rel_zero", zero, clip.intrinsics);
  rays("rel_dist", distance, clip.intrinsics);
  rays("rescaled", zero,
       fit_intrinsics(clip.intrinsics, original[1] / original[0], size[1], size[0]));

  const at::Tensor poses7 = to_poses7(clip.world_to_camera), expected = c.out("minwm/poses7");
  report.compare("minwm/poses7", match_signs(poses7, expected), expected);
  const Cameras cameras = clip.cameras();
  report.compare("minwm/viewmats", cameras.world_to_camera[0], c.out("minwm/viewmats"));
  report.compare("minwm/Ks", cameras.intrinsics[0], c.out("minwm/Ks"));
  report.equal("minwm/labels", action_labels(cameras.world_to_camera[0]), c.out("minwm/labels"));
}

void replay_memory(const Case& c, Report& report) {
  const at::Tensor points = c.in("points");
  const auto& cases = c.config.at("cases");
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string at = std::to_string(i) + "/";
    const at::Tensor views = c.in(at + "w2c");
    const auto current = cases[i].at("current").get<int64_t>();
    MemoryOptions options;
    options.memory_frames = cases[i].at("memory_frames").get<int64_t>();
    options.temporal_context = cases[i].at("temporal_context").get<int64_t>();
    options.predicted_frames = cases[i].at("pred").get<int64_t>();
    std::vector<double> overlaps;
    for (int64_t h = 0; h < current; h += 4) {
      overlaps.push_back(view_overlap(views[current], views[h], points, options));
    }
    report.compare(at + "overlap_to_current", at::tensor(overlaps, at::kDouble),
                   c.out(at + "overlap_to_current"));
    report.equal(at + "selected",
                 at::tensor(select_memory(views, current, points, options), at::kLong),
                 c.out(at + "selected"));
  }
}

const bool registered[] = {register_kind("camera.actions.from_poses", replay_actions),
                           register_kind("camera.pose.interpolate", replay_interpolate),
                           register_kind("camera.pose.random", replay_random),
                           register_kind("camera.re10k", replay_re10k),
                           register_kind("camera.memory.select", replay_memory)};

}  // namespace
}  // namespace minwm::golden
