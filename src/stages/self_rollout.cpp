#include "minwm/stages/self_rollout.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/noise.h"
#include "rollout_parts.h"

namespace minwm::stages {
namespace {

/// The chunks of one rollout, in order.
class Chunks {
 public:
  Chunks(models::Backbone& model, const RolloutInput& input, const RolloutDraws& draws,
         const RolloutOptions& options)
      : model_(model),
        input_(input),
        draws_(draws),
        options_(options),
        full_(options.mode == "full"),
        cache_(rollout_cache(model, draws.noise, draws.noise.size(1), options)),
        main_levels_(rollout_timesteps(options.step_list, options.shift)),
        first_levels_(options.first_chunk_step_list.empty()
                          ? main_levels_
                          : rollout_timesteps(options.first_chunk_step_list, options.shift)) {}

  int64_t count() const { return draws_.noise.size(1) / options_.chunk_frames; }

  struct Result {
    at::Tensor output;   ///< x0 of the exit step, in its graph
    at::Tensor history;  ///< what later chunks see; constant
  };

  Result denoise(int64_t chunk) {
    const auto& levels = this->levels(chunk);
    const int64_t exit = draws_.exit_step[static_cast<size_t>(chunk)];
    const auto steps = full_ ? static_cast<int64_t>(levels.size()) : exit + 1;
    Result result;
    at::Tensor x = put_given(slice(chunk), chunk);
    for (int64_t step = 0; step < steps; ++step) {
      const at::Tensor t = timestep(x, levels[static_cast<size_t>(step)], chunk);
      const at::Tensor sigma = rollout_sigma(t, options_);
      at::Tensor flow, x0;
      {
        const c10::AutoGradMode mode(at::GradMode::is_enabled() && step == exit &&
                                     has_gradient(chunk));
        flow = stream(x, t, chunk, false);
        x0 = put_given(diffusion::predict_x0(x, flow, sigma), chunk);
      }
      if (step == exit) {
        result.output = x0;
      }
      if (step + 1 < steps) {
        const at::Tensor next =
            rollout_sigma(timestep(x, levels[static_cast<size_t>(step) + 1], chunk), options_);
        x = options_.solver == "euler"
                ? x + flow.detach() * diffusion::per_frame(next - sigma, x)
                : diffusion::add_noise(x0.detach(), draws_.renoise(chunk, step), next);
        x = put_given(x, chunk);
      } else {
        result.history = x0.detach();
      }
    }
    return result;
  }

  void commit(int64_t chunk, at::Tensor history) {
    const at::Tensor t = timestep(history, options_.context_noise, chunk);
    if (options_.renoise_context && (options_.context_noise > 0 || options_.table_sigma)) {
      history = put_given(
          diffusion::add_noise(history, draws_.context_noise(chunk), rollout_sigma(t, options_)),
          chunk);
    }
    stream(history, t, chunk, true);
  }

 private:
  bool given(int64_t chunk) const { return chunk == 0 && input_.first_latent.defined(); }
  at::Tensor put_given(const at::Tensor& x, int64_t chunk) const {
    return given(chunk) ? with_given(x, input_.first_latent) : x;
  }
  at::Tensor timestep(const at::Tensor& x, double level, int64_t chunk) const {
    return level_timesteps(x, level, given(chunk));
  }
  const std::vector<double>& levels(int64_t chunk) const {
    return chunk == 0 ? first_levels_ : main_levels_;
  }
  at::Tensor slice(int64_t chunk) const {
    return draws_.noise.narrow(1, chunk * options_.chunk_frames, options_.chunk_frames);
  }
  bool has_gradient(int64_t chunk) const {
    const int64_t old = draws_.noise.size(1) - options_.gradient_frames;
    const int64_t start = chunk * options_.chunk_frames;
    // Full mode masks single frames: a chunk that straddles the border still needs its graph.
    return options_.gradient_frames == 0 ||
           (full_ ? start + options_.chunk_frames > old : start >= old);
  }
  at::Tensor stream(const at::Tensor& x, const at::Tensor& t, int64_t chunk, bool commit) {
    models::StreamInput in;
    in.latents = x;
    in.timestep = t;
    in.conditions = input_.conditions.frames(chunk * options_.chunk_frames, options_.chunk_frames);
    in.commit = commit;
    in.constant_text = !options_.text_gradient;
    return model_.stream(in, *cache_);
  }

  models::Backbone& model_;
  const RolloutInput& input_;
  const RolloutDraws& draws_;
  const RolloutOptions& options_;
  bool full_;
  std::unique_ptr<models::KvCache> cache_;
  std::vector<double> main_levels_, first_levels_;
};

const std::vector<double>& step_list(const RolloutOptions& options, int64_t chunk) {
  return chunk == 0 && !options.first_chunk_step_list.empty() ? options.first_chunk_step_list
                                                              : options.step_list;
}

void check(const RolloutInput& input, const RolloutDraws& draws, const RolloutOptions& options) {
  check_rollout(input, draws.noise, options);
  require(options.mode == "truncated" || options.mode == "full",
          "rollout.mode '{}': expected truncated or full", options.mode);
  require(options.solver == "renoise" || options.solver == "euler",
          "rollout.solver '{}': expected renoise or euler", options.solver);
  const bool euler = options.solver == "euler";
  require(!euler || options.mode == "full",
          "rollout.solver = euler needs rollout.mode = full: a truncated chunk renoises");
  const int64_t count = draws.noise.size(1) / options.chunk_frames;
  require(static_cast<int64_t>(draws.exit_step.size()) == count,
          "rollout: {} exit steps for {} chunks", draws.exit_step.size(), count);
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    const int64_t exit = draws.exit_step[static_cast<size_t>(chunk)];
    const auto steps = static_cast<int64_t>(step_list(options, chunk).size());
    require(exit >= 0 && exit < steps, "rollout: exit step {} of chunk {}, expected 0 … {}", exit,
            chunk, steps - 1);
    require(!euler || exit == steps - 1,
            "rollout.solver = euler has its gradient on the last step, not on step {}", exit);
  }
}

void set_levels(Rollout& rollout, const RolloutDraws& draws, const RolloutOptions& options) {
  if (!options.same_exit) {
    return;
  }
  const auto last = static_cast<int64_t>(draws.exit_step.size()) - 1;
  const auto& list = step_list(options, last);
  const auto exit = static_cast<size_t>(draws.exit_step.back());
  rollout.from = list[exit];
  rollout.to = exit + 1 < list.size() ? list[exit + 1] : 0;
}

}  // namespace

Rollout self_rollout(models::Backbone& model, const RolloutInput& input, const RolloutDraws& draws,
                     const RolloutOptions& options) {
  check(input, draws, options);
  Chunks chunks(model, input, draws, options);
  std::vector<at::Tensor> outputs;
  for (int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
    const auto result = chunks.denoise(chunk);
    outputs.push_back(result.output);
    if (chunk + 1 < chunks.count() || options.commit_last) {
      chunks.commit(chunk, result.history);
    }
  }
  at::Tensor latents = at::cat(outputs, 1);
  const int64_t old = latents.size(1) - options.gradient_frames;
  if (options.mode == "full" && options.gradient_frames > 0 && old > 0) {
    latents = at::cat({latents.narrow(1, 0, old).detach(), latents.slice(1, old)}, 1);
  }
  Rollout rollout;
  keep_end(rollout, latents, input, options);
  set_levels(rollout, draws, options);
  return rollout;
}

RolloutDraws draw_rollout(const data::Batch& batch, const StepAddress& address,
                          const std::string& purpose, const RolloutOptions& options) {
  const std::string prefix = "rollout." + purpose;
  const auto step = static_cast<uint64_t>(address.step);
  const int64_t n = options.chunk_frames;
  const int64_t count = draw_chunk_count(batch.latents, address, prefix, options);
  RolloutDraws draws;
  draws.noise =
      sample_noise(batch.latents.narrow(1, 0, count * n), batch, address, prefix + ".noise");
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    const bool first = chunk == 0 && !options.first_chunk_step_list.empty();
    const auto steps = static_cast<int64_t>(step_list(options, chunk).size());
    // Shared by all ranks: sample 0. One draw for all chunks, or one each; chunk 0's own list has
    // a draw of its own either way.
    const std::string exit = prefix + (first ? ".first_exit" : ".exit");
    const auto index = static_cast<uint64_t>(options.same_exit ? 0 : chunk);
    draws.exit_step.push_back(options.last_step_only || options.solver == "euler"
                                  ? steps - 1
                                  : random_integer(steps, {address.seed, exit, step, 0, index}));
  }
  const at::Tensor like = batch.latents.narrow(1, 0, n);
  draws.renoise = [=](int64_t chunk, int64_t at_step) {
    return sample_noise(
        like, batch, address,
        prefix + ".renoise." + std::to_string(chunk) + "." + std::to_string(at_step));
  };
  draws.context_noise = [=](int64_t chunk) {
    return sample_noise(like, batch, address, prefix + ".context." + std::to_string(chunk));
  };
  return draws;
}

std::vector<double> rollout_timesteps(const std::vector<double>& step_list, double shift) {
  std::vector<double> timesteps = diffusion::few_step_sigmas(step_list, shift);
  for (double& t : timesteps) {
    t *= 1000;
  }
  return timesteps;
}

std::function<at::Tensor(const at::Tensor&)> last_frame_encoder(
    std::shared_ptr<models::Codec> codec) {
  return [codec](const at::Tensor& latents) {
    const at::Tensor pixels = codec->decode(latents.to(at::kCPU));
    return codec->encode(pixels.slice(1, -1)).to(latents.device());
  };
}

void RolloutOptions::declare(Options& options) {
  const std::string s = "rollout.";
  options.add(s + "step_list", &step_list, "timesteps of the few steps, before the shift");
  options.add(s + "first_chunk_step_list", &first_chunk_step_list,
              "the first chunk's own timesteps; empty = step_list");
  options.add(s + "shift", &shift, "shift of the noise levels");
  options.add(s + "chunk_frames", &chunk_frames, "latent frames generated together");
  options.add(s + "window_frames", &window_frames,
              "frames a chunk attends to, itself and the sink included");
  options.add(s + "sink_frames", &sink_frames, "first frames that stay in the window");
  options.add(s + "sink_follows_window", &sink_follows_window,
              "sink frames take the positions just before the rest of the window");
  options.add_choice(s + "mode", &mode, {"truncated", "full"},
                     "chunks stop at their exit step, or run all steps");
  options.add_choice(s + "solver", &solver, {"renoise", "euler"}, "how steps follow each other");
  options.add(s + "same_exit", &same_exit, "one exit step for all chunks");
  options.add(s + "last_step_only", &last_step_only, "always exit at the last step");
  options.add(s + "gradient_frames", &gradient_frames, "last frames that have gradients; 0 = all");
  options.add(s + "minimum_frames", &minimum_frames,
              "draw the length, from so many frames to the whole clip; 0 = always the whole clip");
  options.add(s + "context_noise", &context_noise,
              "timestep at which a finished chunk enters the cache");
  options.add(s + "renoise_context", &renoise_context, "and noise it to that level first");
  options.add(s + "table_sigma", &table_sigma,
              "sigma of the nearest of 1000 table entries, as the Wan reference");
  options.add(s + "text_gradient", &text_gradient,
              "gradients reach the text's keys and values (HY reference: no)");
}

}  // namespace minwm::stages
