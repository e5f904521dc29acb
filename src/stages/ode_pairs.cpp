#include "minwm/stages/ode_pairs.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/diffusion/guidance.h"
#include "minwm/stages/guided_flow.h"

namespace minwm::stages {
namespace {

/// k with steps (1 - t / 1000) = k, if there is one.
std::optional<int64_t> step_at(int64_t steps, double timestep) {
  const double k = static_cast<double>(steps) * (1 - timestep / 1000);
  const double nearest = std::round(k);
  constexpr double kRounding = 1e-6;
  return std::abs(k - nearest) < kRounding ? std::optional(static_cast<int64_t>(nearest))
                                           : std::nullopt;
}

/// A number of steps near `steps`, from there upwards, that has a step at every level; 0 = none.
int64_t fitting_steps(int64_t steps, const std::vector<double>& step_list) {
  for (int64_t n = steps; n < steps + 1000; ++n) {
    if (std::all_of(step_list.begin(), step_list.end(),
                    [&](double t) { return step_at(n, t).has_value(); })) {
      return n;
    }
  }
  return 0;
}

/// Euler from the noise to sigma 0, where `noised` [B, T] is 1; the rest stays. `flow(x, timestep)`
/// → like x. [B, kept + 1, T, C, h, w]: the kept states and the endpoint.
template <class Flow>
at::Tensor solve(at::Tensor x, const at::Tensor& noised, const OdePairOptions& options,
                 const Flow& flow) {
  const auto sigmas = diffusion::sampling_sigmas(options.steps, options.shift);
  std::vector<at::Tensor> states;
  for (int64_t k = 0; k < options.steps; ++k) {
    if (std::binary_search(options.kept.begin(), options.kept.end(), k)) {
      states.push_back(x);
    }
    const double sigma = sigmas[static_cast<size_t>(k)], next = sigmas[static_cast<size_t>(k) + 1];
    x = x + flow(x, noised * (1000 * sigma)) * diffusion::per_frame(noised * (next - sigma), x);
  }
  states.push_back(x);
  return at::stack(states, 1);
}

/// One teacher-forcing pass over all chunks for every step.
at::Tensor solve_whole(models::Backbone& model, const OdePairInput& input, const at::Tensor& start,
                       const at::Tensor& noised, const OdePairOptions& options) {
  models::ForwardInput forward;
  forward.conditions = input.conditions;
  forward.clean_latents = input.clean;
  forward.chunk_frames = options.chunk_frames;
  return solve(start, noised, options, [&](const at::Tensor& x, const at::Tensor& timestep) {
    forward.latents = x;
    forward.timestep = timestep;
    return guided_flow(model, forward, input.negative, options.guidance_scale).flow;
  });
}

at::Tensor twice(const at::Tensor& x) {
  return at::cat({x, x});
}

/// Chunk by chunk over the cache of the clean chunks before; both halves of guidance side by side
/// in one cache.
at::Tensor solve_chunks(models::Backbone& model, const OdePairInput& input, const at::Tensor& start,
                        const at::Tensor& noised, const OdePairOptions& options) {
  const bool guided = options.guidance_scale != 1;
  const models::Conditions conditions =
      guided ? joined(input.conditions, input.conditions.with_text_of(input.negative))
             : input.conditions;
  const int64_t clips = start.size(0), frames = start.size(1), chunk = options.chunk_frames;
  const auto cache =
      model.make_cache({guided ? 2 * clips : clips, frames, 0}, start.size(3), start.size(4));
  std::vector<at::Tensor> states;
  for (int64_t first = 0; first < frames; first += chunk) {
    models::StreamInput stream;
    stream.conditions = conditions.frames(first, chunk);
    auto flow = [&](const at::Tensor& x, const at::Tensor& timestep) {
      stream.latents = guided ? twice(x) : x;
      stream.timestep = guided ? twice(timestep) : timestep;
      const at::Tensor v = model.stream(stream, *cache);
      return guided ? diffusion::guide(v.narrow(0, 0, clips), v.narrow(0, clips, clips),
                                       options.guidance_scale)
                    : v;
    };
    states.push_back(
        solve(start.narrow(1, first, chunk), noised.narrow(1, first, chunk), options, flow));
    if (first + chunk < frames) {
      const at::Tensor clean = input.clean.narrow(1, first, chunk);
      stream.latents = guided ? twice(clean) : clean;
      stream.timestep = at::zeros({stream.latents.size(0), chunk}, noised.options());
      stream.commit = true;
      model.stream(stream, *cache);
    }
  }
  return at::cat(states, 2);
}

/// [B, T] float32: 0 for the first latents that are given, else 1.
at::Tensor noised_frames(const OdePairInput& input) {
  const int64_t clips = input.clean.size(0), frames = input.clean.size(1);
  const auto options = input.clean.options().dtype(at::kFloat);
  if (!input.given.defined()) {
    return at::ones({clips, frames}, options);
  }
  const at::Tensor frame = at::arange(frames, options.dtype(at::kLong));
  return (frame >= input.given.to(options.device()).unsqueeze(1)).to(at::kFloat);
}

}  // namespace

std::vector<int64_t> kept_steps(int64_t steps, const std::vector<double>& step_list) {
  require(steps > 0, "{} solver steps: expected at least 1", steps);
  (void)diffusion::few_step_sigmas(step_list, 1);  // descending, in (0, 1000]
  std::vector<int64_t> kept;
  for (const double timestep : step_list) {
    const auto step = step_at(steps, timestep);
    const int64_t other = step ? steps : fitting_steps(steps, step_list);
    require(step.has_value(), "{} solver steps: none starts at timestep {:g} of the step list{}",
            steps, timestep, other > 0 ? fmt::format("; {} steps fit", other) : "");
    kept.push_back(*step);
  }
  return kept;
}

at::Tensor ode_pairs(models::Backbone& model, const OdePairInput& input,
                     const OdePairOptions& options) {
  at::NoGradGuard no_grad;
  require(input.clean.dim() == 5 && input.clean.sizes() == input.noise.sizes(),
          "ODE pairs: clips and noise must be [B, T, C, h, w] alike");
  require(input.clean.size(1) % options.chunk_frames == 0,
          "ODE pairs: {} latent frames are not a multiple of the chunk of {}", input.clean.size(1),
          options.chunk_frames);
  const at::Tensor noised = noised_frames(input);
  const at::Tensor start = diffusion::add_noise(input.clean, input.noise, noised);
  const at::Tensor states =
      (options.cached ? solve_chunks : solve_whole)(model, input, start, noised, options);
  return at::cat({states, input.clean.unsqueeze(1)}, 1);
}

}  // namespace minwm::stages
