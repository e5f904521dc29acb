#include "minwm/stages/ode.h"

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/noise.h"
#include "minwm/stages/text_dropout.h"

namespace minwm::stages {
namespace {

/// The states [B, T, C, h, w] that `step` [B, T] picks out of trajectories [B, S + 2, T, C, h, w].
at::Tensor pick(const at::Tensor& states, const at::Tensor& step) {
  at::Tensor index = step.unsqueeze(1).unsqueeze(3).unsqueeze(4).unsqueeze(5);
  auto shape = states.sizes().vec();
  shape[1] = 1;
  return states.gather(1, index.expand(shape)).squeeze(1);
}

}  // namespace

void OdeOptions::declare(Options& options) {
  options.add("ode.step_list", &step_list,
              "timesteps before the shift that the student starts from: those of the ODE store");
  options.add("ode.shift", &levels.shift,
              "noise levels are shift(u) = s u / (1 + (s - 1) u): that of the ODE store");
  options.add("ode.chunk_frames", &chunk_frames, "latent frames of a chunk");
  options.add("ode.text_dropout", &text_dropout, "probability that a clip's text is dropped");
  options.add("ode.bfloat16_sigma", &levels.bfloat16_sigma,
              "round sigma to bfloat16 in x0 = x - sigma v, as the HY reference");
  levels.declare(options, "ode");
}

void OdeOptions::check() const {
  require(!step_list.empty(), "ode.step_list is empty: expected timesteps, e.g. 1000,750,500,250");
  require(levels.shift > 0, "ode.shift {}: expected more than 0", levels.shift);
  require(chunk_frames > 0, "ode.chunk_frames {}: expected 1 or more", chunk_frames);
  require(text_dropout >= 0 && text_dropout <= 1, "ode.text_dropout {}: expected 0 … 1",
          text_dropout);
  (void)timesteps();  // in order
}

std::vector<double> OdeOptions::timesteps() const {
  std::vector<double> timesteps = diffusion::few_step_sigmas(step_list, levels.shift);
  for (double& t : timesteps) {
    t *= 1000;
  }
  return timesteps;
}

OdeDraws draw_ode(const data::Batch& batch, const StepAddress& address, const OdeOptions& options) {
  require(batch.ode_states.defined(),
          "stage ode: the clips have no ODE trajectories: make them with minwm data ode-pairs and "
          "give that store to --data.stores");
  const auto levels = static_cast<int64_t>(options.step_list.size());
  require(batch.ode_states.size(1) == levels + 2,
          "stage ode: the trajectories were kept at {} levels, ode.step_list {} has {}",
          batch.ode_states.size(1) - 2, fmt::join(options.step_list, ","), levels);
  const int64_t clips = batch.latents.size(0), frames = batch.latents.size(1);
  require(frames % options.chunk_frames == 0,
          "stage ode: {} latent frames are not a multiple of ode.chunk_frames {}", frames,
          options.chunk_frames);
  const at::Device device = batch.latents.device();
  const at::Tensor u = sample_uniform(1, batch, address, "ode.step");
  OdeDraws draws;
  draws.step = (u * levels).to(at::kLong).clamp_max(levels - 1).expand({clips, frames});
  draws.timestep = at::tensor(options.timesteps(), at::kFloat).to(device).take(draws.step);
  if (batch.given.defined()) {
    const at::Tensor frame = at::arange(frames, at::TensorOptions(at::kLong).device(device));
    draws.timestep.masked_fill_(frame < batch.given.to(device).unsqueeze(1), 0);
  }
  draws.text_kept = draw_text_kept(batch, address, "ode.text", options.text_dropout);
  return draws;
}

OdeTerms ode_loss(models::Backbone& model, const data::Batch& batch, const OdeDraws& draws,
                  const OdeOptions& options) {
  OdeTerms terms;
  terms.noisy = pick(batch.ode_states, draws.step);
  terms.timestep = network_timestep(draws.timestep, options.levels);
  models::ForwardInput input;
  input.latents = terms.noisy;
  input.timestep = terms.timestep;
  input.conditions = keep_text(batch.conditions, draws.text_kept, options.negative);
  input.clean_latents = batch.latents;
  input.chunk_frames = options.chunk_frames;
  terms.flow = model.forward(input);
  terms.sigma = sigma_of(draws.timestep, options.levels);
  terms.x0 = diffusion::predict_x0(terms.noisy, terms.flow, terms.sigma);
  const at::Tensor endpoint = batch.ode_states.select(1, batch.ode_states.size(1) - 2);
  const at::Tensor error = (terms.x0 - endpoint).square().mean({2, 3, 4});  // [B, T]
  const at::Tensor noised = (draws.timestep > 0).to(at::kFloat);
  const at::Tensor errors = (error * noised).sum(1) / noised.sum(1).clamp_min(1);
  terms.errors = errors.detach();
  terms.loss = errors.mean();
  return terms;
}

void require_ode_levels(const std::vector<double>& ode_sigmas, const OdeOptions& options,
                        const std::string& where) {
  require(!ode_sigmas.empty(), "{}: holds no ODE trajectories: make them with minwm data ode-pairs",
          where);
  std::vector<double> sigmas = options.timesteps();
  for (double& sigma : sigmas) {
    sigma /= 1000;
  }
  // Both are float64 from the same formula, one through a text.
  constexpr double kTolerance = 1e-9;
  const bool same = std::equal(ode_sigmas.begin(), ode_sigmas.end(), sigmas.begin(), sigmas.end(),
                               [](double a, double b) { return std::abs(a - b) <= kTolerance; });
  require(same,
          "{}: ODE trajectories at sigma {:g}; ode.step_list {:g} at ode.shift {:g} means {:g}",
          where, fmt::join(ode_sigmas, ", "), fmt::join(options.step_list, ","),
          options.levels.shift, fmt::join(sigmas, ", "));
}

LossOutput OdeRegression::loss(size_t /*network*/, const data::Batch& batch,
                               const StepAddress& address) {
  const OdeDraws draws = draw_ode(batch, address, options_);
  const OdeTerms terms = ode_loss(*model_, batch, draws, options_);
  LossOutput output{terms.loss, {}};
  const at::Tensor step = draws.step.select(1, 0);
  for (size_t k = 0; k < options_.step_list.size(); ++k) {
    const at::Tensor here = (step == static_cast<int64_t>(k)).to(at::kFloat);
    const std::string level = fmt::format("{:g}", options_.step_list[k]);
    output.values["mse_sum_" + level] = (terms.errors * here).sum();
    output.values["mse_count_" + level] = here.sum();
  }
  return output;
}

}  // namespace minwm::stages
