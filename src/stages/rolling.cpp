#include "minwm/stages/rolling.h"

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/noise.h"
#include "rollout_parts.h"

namespace minwm::stages {
namespace {

/// The conditions of consecutive chunks as those of one sequence of frames.
models::Conditions joined(const std::vector<models::Conditions>& chunks) {
  models::Conditions out = chunks.front();
  std::vector<at::Tensor> world_to_camera, intrinsics, image_latents, actions;
  for (const auto& c : chunks) {
    world_to_camera.push_back(c.cameras.world_to_camera);
    intrinsics.push_back(c.cameras.intrinsics);
    image_latents.push_back(c.image_latents);
    actions.push_back(c.actions);
  }
  if (out.cameras.defined()) {
    out.cameras = {at::cat(world_to_camera, 1), at::cat(intrinsics, 1)};
  }
  if (out.image_latents.defined()) {
    out.image_latents = at::cat(image_latents, 1);
  }
  if (out.actions.defined()) {
    out.actions = at::cat(actions, 1);
  }
  return out;
}

}  // namespace

RollingWindow::RollingWindow(models::Backbone& model, const RolloutOptions& options,
                             at::Tensor first_latent)
    : model_(model),
      options_(options),
      levels_(rollout_timesteps(options.step_list, options.shift)),
      first_latent_(std::move(first_latent)) {
  const int64_t full = static_cast<int64_t>(levels_.size()) * options.chunk_frames;
  require(!levels_.empty(), "rollout.step_list: at least one timestep is needed");
  require(options.sink_frames + full <= options.window_frames,
          "rolling rollout: rollout.window_frames = {} does not hold {} chunks of {} frames and {} "
          "sink frames",
          options.window_frames, levels_.size(), options.chunk_frames, options.sink_frames);
  require(options.first_chunk_step_list.empty() && !options.renoise_context &&
              options.solver == "renoise",
          "rolling rollout: has no rollout.first_chunk_step_list, renoise_context or euler");
}

void RollingWindow::enter(const at::Tensor& noise, const models::Conditions& conditions) {
  require(noise.dim() == 5 && noise.size(1) == options_.chunk_frames,
          "rolling rollout: noise of a chunk must be [B, {}, C, h, w]", options_.chunk_frames);
  require(chunks_.empty() || chunks_.back().level > 0,
          "rolling rollout: chunk {} enters before the last one had its first pass", entered_);
  if (!cache_) {
    models::CacheOptions cache;
    cache.batch = noise.size(0);
    cache.window_frames = options_.window_frames;
    cache.sink_frames = options_.sink_frames;
    cache.sink_follows_window = options_.sink_follows_window;
    cache_ = model_.make_cache(cache, noise.size(3), noise.size(4));
  }
  chunks_.push_back({entered_++, 0, noise, conditions});
}

bool RollingWindow::holds_given() const {
  return first_latent_.defined() && chunks_.front().index == 0;
}

at::Tensor RollingWindow::timestep(const Chunk& chunk) const {
  return level_timesteps(chunk.noisy, levels_[chunk.level],
                         first_latent_.defined() && chunk.index == 0);
}

RollingWindow::Pass RollingWindow::advance(const Renoise& renoise) {
  require(!chunks_.empty(), "rolling rollout: the window is empty");
  settle();
  std::vector<at::Tensor> noisy, times;
  std::vector<models::Conditions> conditions;
  for (const Chunk& chunk : chunks_) {
    noisy.push_back(chunk.noisy);
    times.push_back(timestep(chunk));
    conditions.push_back(chunk.conditions);
  }
  const at::Tensor given = holds_given() ? first_latent_ : at::Tensor();
  models::StreamInput in;
  in.latents = with_given(at::cat(noisy, 1), given);
  in.timestep = at::cat(times, 1);
  in.conditions = joined(conditions);
  in.constant_text = !options_.text_gradient;
  const at::Tensor flow = model_.stream(in, *cache_);
  Pass pass{
      chunks_.front().index,
      with_given(diffusion::predict_x0(in.latents, flow, rollout_sigma(in.timestep, options_)),
                 given),
      false};
  const auto clean = pass.x0.detach().split(options_.chunk_frames, 1);
  for (size_t i = 0; i < chunks_.size(); ++i) {
    Chunk& chunk = chunks_[i];
    chunk.noisy = clean[i];
    if (++chunk.level < levels_.size()) {
      chunk.noisy = diffusion::add_noise(clean[i], renoise(windows_, chunk.index),
                                         rollout_sigma(timestep(chunk), options_));
    }
  }
  if (chunks_.front().level == levels_.size()) {
    pass.finished = true;
    leaving_ = std::move(chunks_.front());
    chunks_.pop_front();
  }
  ++windows_;
  return pass;
}

void RollingWindow::settle() {
  if (!leaving_.noisy.defined()) {
    return;
  }
  models::StreamInput in;
  in.latents = leaving_.noisy;
  in.timestep = level_timesteps(in.latents, options_.context_noise,
                                first_latent_.defined() && leaving_.index == 0);
  in.conditions = leaving_.conditions;
  in.commit = true;
  in.constant_text = !options_.text_gradient;
  model_.stream(in, *cache_);
  leaving_ = {};
}

Rollout rolling_rollout(models::Backbone& model, const RolloutInput& input,
                        const RollingDraws& draws, const RolloutOptions& options) {
  check_rollout(input, draws.noise, options);
  const int64_t n = options.chunk_frames, count = draws.noise.size(1) / n;
  const auto levels = static_cast<int64_t>(options.step_list.size());
  require(draws.exit_window >= 0 && draws.exit_window < levels,
          "rolling rollout: exit window {}, expected 0 … {}", draws.exit_window, levels - 1);
  RollingWindow window(model, options, input.first_latent);
  std::vector<at::Tensor> outputs;
  const int64_t old =
      options.gradient_frames == 0 ? 0 : draws.noise.size(1) - options.gradient_frames;
  for (int64_t w = 0; w < count + levels - 1; ++w) {
    if (w < count) {
      window.enter(draws.noise.narrow(1, w * n, n), input.conditions.frames(w * n, n));
    }
    const bool output = w % levels == draws.exit_window;
    const bool recent = std::min(w, count - 1) * n >= old;  // the newest chunk of this window
    const c10::AutoGradMode mode(at::GradMode::is_enabled() && output && recent);
    const auto pass = window.advance(draws.renoise);
    // Every chunk is in S consecutive windows, so in exactly one whose number fits.
    if (output) {
      for (const at::Tensor& chunk : pass.x0.split(n, 1)) {
        const auto start = static_cast<int64_t>(outputs.size()) * n;
        outputs.push_back(start >= old ? chunk : chunk.detach());
      }
    }
  }
  if (options.commit_last) {
    window.settle();
  }
  Rollout rollout;
  keep_end(rollout, at::cat(outputs, 1), input, options);
  return rollout;
}

RollingDraws draw_rolling(const data::Batch& batch, const StepAddress& address,
                          const std::string& purpose, const RolloutOptions& options) {
  const std::string prefix = "rolling." + purpose;
  const int64_t n = options.chunk_frames,
                count = draw_chunk_count(batch.latents, address, prefix, options);
  RollingDraws draws;
  draws.noise =
      sample_noise(batch.latents.narrow(1, 0, count * n), batch, address, prefix + ".noise");
  draws.exit_window =
      random_integer(static_cast<int64_t>(options.step_list.size()),
                     {address.seed, prefix + ".exit", static_cast<uint64_t>(address.step)});
  const at::Tensor like = batch.latents.narrow(1, 0, n);
  draws.renoise = [=](int64_t window, int64_t chunk) {
    return sample_noise(
        like, batch, address,
        prefix + ".renoise." + std::to_string(window) + "." + std::to_string(chunk));
  };
  return draws;
}

}  // namespace minwm::stages
