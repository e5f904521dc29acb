#pragma once
// The small HY model of this room's tests, and clips for it whose text streams differ in length.

#include <memory>
#include <vector>

#include "tests/models/small_hy.h"

namespace minwm::parallel::testing {

using models::testing::kChannels;
using models::testing::kHeight;
constexpr int64_t kWideWidth = 10;  // 2 x 5 tokens per frame: they do not divide by 3 or 4
constexpr int64_t kClips = 4;

/// 5 heads: they do not divide by 2, 3 or 4 ranks.
inline models::HyConfig five_heads(int64_t layers, bool camera = true) {
  auto config = camera ? models::testing::with_camera(true) : models::testing::small_hy();
  config.hidden_size = 40;
  config.heads_num = 5;
  config.rope_dim_list = {2, 2, 4};
  config.mm_double_blocks_depth = layers;
  return config;
}

/// Some of kClips clips.
struct Clips {
  int64_t first = 0, count = 1;
  at::Tensor of(const at::Tensor& all) const {
    return all.defined() ? all.narrow(0, first, count) : all;
  }
};

/// Text streams of 8, 7, 1 and 8 rows: vision, glyphs and text, of clip 2 one row of text alone.
inline models::Conditions wide_conditions(const models::HyConfig& config, const Clips& clips,
                                          int64_t frames) {
  auto c = models::testing::small_conditions(config, kClips, frames);
  c.byt5_mask[1].slice(0, 1).zero_();
  c.text_mask[2].slice(0, 1).zero_();
  c.vision[2].zero_();
  c.text_to_video = true;  // clip 2 alone has no image
  c.image_latents =
      random_normal({kClips, frames, kChannels + 1, kHeight, kWideWidth}, {11, "wide image"});
  for (at::Tensor* tensor : {&c.text, &c.text_mask, &c.byt5, &c.byt5_mask, &c.vision, &c.actions,
                             &c.image_latents, &c.cameras.world_to_camera, &c.cameras.intrinsics}) {
    *tensor = clips.of(*tensor);
  }
  return c;
}

inline at::Tensor wide_latents(const char* purpose, const Clips& clips, int64_t frames) {
  return clips.of(random_normal({kClips, frames, kChannels, kHeight, kWideWidth}, {13, purpose}));
}

enum class Form { kBidirectional, kCausal, kForced };

/// What a computation gives, and the loss whose backward is still to come.
struct Step {
  at::Tensor input, output, loss;
  /// Output, loss and the gradient of the input.
  std::vector<at::Tensor> backward() const {
    loss.backward();
    return {output.detach(), loss.detach(), input.grad()};
  }
};

/// The flow of 5 frames in chunks of 2: the last one is short.
inline Step hy_step(models::Backbone& model, const models::HyConfig& config, Form form,
                    const Clips& clips) {
  constexpr int64_t kFrames = 5, kChunk = 2;
  models::ForwardInput input;
  input.latents = wide_latents("noisy", clips, kFrames).clone().requires_grad_();
  input.timestep = clips.of(models::testing::chunk_timesteps(kClips, kFrames, kChunk));
  input.conditions = wide_conditions(config, clips, kFrames);
  if (form == Form::kBidirectional) {
    input.text_timestep = clips.of(at::tensor({0.f, 250.f, 250.f, 700.5f}));
  } else {
    input.chunk_frames = kChunk;
  }
  if (form == Form::kForced) {
    input.clean_latents = wide_latents("clean", clips, kFrames);
  }
  const at::Tensor flow = model.forward(input);
  return {input.latents, flow, (flow - wide_latents("target", clips, kFrames)).square().mean()};
}

/// Video out of noise: seven frames in chunks of 2, 2, 1, 2 through a window of four with one sink.
/// Every chunk is denoised once without and once under gradients, its result goes on to the loss
/// and into the cache.
inline Step hy_rollout(models::Backbone& model, const models::HyConfig& config, const Clips& clips,
                       bool constant_text) {
  constexpr int64_t kFrames = 7;
  const auto cache = model.make_cache({clips.count, 4, 1}, kHeight, kWideWidth);
  const at::Tensor noise = wide_latents("noise", clips, kFrames).clone().requires_grad_();
  const auto conditions = wide_conditions(config, clips, kFrames);
  std::vector<at::Tensor> chunks;
  int64_t first = 0;
  for (const int64_t count : {2, 2, 1, 2}) {
    models::StreamInput input;
    input.latents = noise.narrow(1, first, count);
    input.timestep = at::full({clips.count, count}, 700.0);
    input.conditions = conditions.frames(first, count);
    input.constant_text = constant_text;
    {
      at::NoGradGuard no_grad;
      input.latents = input.latents - 0.3 * model.stream(input, *cache);
    }
    input.latents = input.latents + 0.1 * noise.narrow(1, first, count);
    input.timestep = at::full({clips.count, count}, 400.0);
    chunks.push_back(input.latents - 0.4 * model.stream(input, *cache));
    input.latents = chunks.back().detach();
    input.timestep = at::zeros({clips.count, count});
    input.commit = true;
    model.stream(input, *cache);
    first += count;
  }
  const at::Tensor video = at::cat(chunks, 1);
  return {noise, video, (video - wide_latents("target", clips, kFrames)).square().mean()};
}

}  // namespace minwm::parallel::testing
