#pragma once
// A small HY model and conditions for it.

#include <memory>
#include <string>

#include "minwm/camera/pose_string.h"
#include "minwm/core/random.h"
#include "minwm/models/hy/backbone.h"

namespace minwm::models::testing {

constexpr int64_t kChannels = 3, kHeight = 4, kWidth = 6;  // 2 x 3 tokens

inline HyConfig small_hy() {
  HyConfig config;
  config.patch_size = {1, 2, 2};
  config.in_channels = config.out_channels = kChannels;
  config.hidden_size = 32;
  config.heads_num = 2;
  config.mm_double_blocks_depth = 2;
  config.mlp_width_ratio = 2;
  config.rope_dim_list = {4, 6, 6};
  config.text_states_dim = 6;
  config.vision_states_dim = 5;
  config.byt5_dims = {7, 8, 9};
  config.camera = false;
  return config;
}

inline HyConfig with_camera(bool action = false) {
  HyConfig config = small_hy();
  config.camera = true;
  config.action = action;
  return config;
}

/// Modulation and heads start at zero; random weights make every input matter.
inline std::shared_ptr<HyBackbone> lively_hy(const HyConfig& config) {
  auto model = std::make_shared<HyBackbone>(config, 1);
  at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters()) {
    item.value().add_(0.15 * random_normal(item.value().sizes(), {7, item.key()}));
  }
  return model;
}

/// `batch` clips of `frames`: other text lengths, cameras and actions in each; image latents and
/// vision. Cameras and actions only if the model reads them.
inline Conditions small_conditions(const HyConfig& config, int64_t batch, int64_t frames) {
  const auto draw = [](at::IntArrayRef shape, const char* what) {
    return random_normal(shape, {11, what});
  };
  Conditions c;
  c.text = draw({batch, 5, config.text_states_dim}, "text");
  c.text_mask = at::ones({batch, 5});
  c.byt5 = draw({batch, 3, config.byt5_dims.in}, "byt5");
  c.byt5_mask = at::ones({batch, 3});
  for (int64_t i = 0; i < batch; ++i) {
    c.text_mask[i].slice(0, 5 - i % 3).zero_();
    c.byt5_mask[i].slice(0, (i + 1) % 3).zero_();
  }
  c.vision = draw({batch, 2, config.vision_states_dim}, "vision");
  c.image_latents = draw({batch, frames, kChannels + 1, kHeight, kWidth}, "image");
  if (config.camera) {
    std::vector<at::Tensor> views, intrinsics;
    for (int64_t i = 0; i < batch; ++i) {
      const auto path = camera::parse_pose_string(i % 2 == 0 ? "w*3,l*4,d*4,i*2" : "a*5,j*3,w*6");
      const at::Tensor poses = camera::integrate(path).slice(0, 0, frames);
      const auto one = camera::make_cameras(poses, 0.5, 0.9);
      views.push_back(one.world_to_camera);
      intrinsics.push_back(one.intrinsics);
    }
    c.cameras = {at::cat(views), at::cat(intrinsics)};
    // Steps of a world that is large next to the head, so that cameras matter.
    c.cameras.world_to_camera.slice(2, 0, 3).select(3, 3).mul_(5);
  }
  if (config.action) {
    c.actions = actions_of(c.cameras);
  }
  return c;
}

inline at::Tensor small_latents(const char* purpose, int64_t batch, int64_t frames) {
  return random_normal({batch, frames, kChannels, kHeight, kWidth}, {13, purpose});
}

/// One of `levels` per chunk, others for every sample.
inline at::Tensor chunk_timesteps(int64_t batch, int64_t frames, int64_t chunk_frames) {
  const at::Tensor chunks = at::arange(frames).floor_divide(chunk_frames).to(at::kFloat);
  const at::Tensor clips = at::arange(batch).to(at::kFloat).unsqueeze(1);
  return 900 - 170.5 * chunks - 60.25 * clips;
}

/// Conditions of clip `index` alone.
inline Conditions clip_conditions(const Conditions& batch, int64_t index) {
  const auto clip = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, index, 1) : x; };
  Conditions c = batch;
  for (at::Tensor* tensor : {&c.text, &c.text_mask, &c.byt5, &c.byt5_mask, &c.vision, &c.actions,
                             &c.image_latents, &c.cameras.world_to_camera, &c.cameras.intrinsics}) {
    *tensor = clip(*tensor);
  }
  return c;
}

/// Largest difference relative to the largest entry of the reference.
inline double relative_distance(const at::Tensor& ours, const at::Tensor& reference) {
  return ((ours - reference).abs().max() / reference.abs().max().clamp_min(1e-30)).item<double>();
}

}  // namespace minwm::models::testing
