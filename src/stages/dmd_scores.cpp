#include "minwm/stages/dmd_scores.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/diffusion/losses.h"
#include "minwm/stages/noise.h"

namespace minwm::stages {
namespace {

constexpr double kLevels = 1000;  // timesteps of the unshifted schedule
constexpr int64_t kLastIndex = 999;

/// [lo, hi) of the levels before the shift. Chunks that exit at different steps have no common
/// range: then all levels.
std::pair<double, double> level_range(const Rollout& rollout, const ScoreOptions& options) {
  const bool known = rollout.from >= 0;
  return {options.ts_schedule && known ? rollout.to : options.min_timestep,
          options.ts_schedule_max && known ? rollout.from : kLevels};
}

/// Scale of the standard form.
double standard_scale(double scale, const ScoreOptions& options) {
  return options.guidance_form == "plus" ? scale + 1 : scale;
}

void check_guidance(const char* key, double scale, const ScoreOptions& options) {
  require(scale >= 0, "dmd.{} {}: expected a scale of at least 0", key, scale);
  require(standard_scale(scale, options) > 0,
          "dmd.{} 0 would leave the text out altogether: 1 switches guidance off in the standard "
          "form",
          key);
}

}  // namespace

void ScoreOptions::declare(Options& options) {
  options.add("dmd.min_timestep", &min_timestep, "lowest score timestep before the shift");
  options.add("dmd.ts_schedule", &ts_schedule,
              "score timesteps start at the level after the rollout's exit step");
  options.add("dmd.ts_schedule_max", &ts_schedule_max,
              "score timesteps end at the level of the rollout's exit step");
  options.add("dmd.shift", &level.shift, "shift of the score timesteps");
  level.declare(options, "dmd");
  options.add("dmd.min_sigma", &min_sigma, "lowest noise level the scores see");
  options.add("dmd.max_sigma", &max_sigma, "highest noise level the scores see");
  options.add("dmd.truncate_index", &truncate_index,
              "score timesteps are entries of a 1000-entry table, as HY's reference");
  options.add("dmd.min_index", &min_index, "with truncate_index: lowest entry / 1000");
  options.add("dmd.max_index", &max_index, "with truncate_index: highest entry / 1000");
  options.add_choice("dmd.timestep_convention", &timestep_convention, {"sigma", "upstream_index"},
                     "timestep the scores are told: 1000 sigma, or HY's table index");
  options.add("dmd.shared_draw", &shared_draw,
              "one score timestep and noise for all samples, as HY's reference");
  options.add_choice("dmd.guidance_form", &guidance_form, {"standard", "plus"},
                     "u + g (c - u), or c + g (c - u)");
  options.add("dmd.real_guidance", &real_guidance, "guidance of the real score");
  options.add("dmd.fake_guidance", &fake_guidance, "guidance of the fake score");
  options.add_choice("dmd.normalizer", &normalizer, {"sample", "global"},
                     "what the gradient is divided by: mean |x - x0_real| of a sample or of all");
}

void ScoreOptions::check() const {
  require(min_sigma >= 0 && min_sigma < max_sigma && max_sigma <= 1,
          "dmd.min_sigma {} and dmd.max_sigma {}: expected 0 <= min < max <= 1", min_sigma,
          max_sigma);
  require(min_index >= 0 && min_index <= max_index && max_index <= 1,
          "dmd.min_index {} and dmd.max_index {}: expected 0 <= min <= max <= 1", min_index,
          max_index);
  require(min_timestep >= 0 && min_timestep < kLevels,
          "dmd.min_timestep {}: expected a timestep in [0, 1000)", min_timestep);
  require(level.shift > 0, "dmd.shift {}: expected a positive number", level.shift);
  check_guidance("real_guidance", real_guidance, *this);
  check_guidance("fake_guidance", fake_guidance, *this);
}

ScoreDraws draw_score(const data::Batch& batch, const StepAddress& address,
                      const std::string& update, const ScoreOptions& options) {
  data::Batch drawn_for = batch;
  if (options.shared_draw) {
    drawn_for.global_samples = {0};
  }
  ScoreDraws draws;
  draws.u = sample_uniform(1, drawn_for, address, "dmd." + update + ".score_level").squeeze(1);
  draws.noise = sample_noise(batch.latents, drawn_for, address, "dmd." + update + ".score_noise")
                    .expand_as(batch.latents);
  return draws;
}

ScoreInput score_input(const Rollout& rollout, const ScoreDraws& draws, int64_t given,
                       const ScoreOptions& options) {
  const at::Tensor latents = rollout.latents.detach();
  const auto [lo, hi] = level_range(rollout, options);
  at::Tensor level =
      (draws.level.defined() ? draws.level : lo + draws.u * (hi - lo)).to(at::kFloat);
  at::Tensor index = kLevels - level;
  if (options.truncate_index) {
    index = index.trunc().clamp(kLevels * options.min_index, kLevels * options.max_index);
    level = kLevels - index.clamp_max(kLastIndex);
  }
  const at::Tensor timestep =
      (kLevels * diffusion::shift_sigma(level / kLevels, options.level.shift))
          .clamp(kLevels * options.min_sigma, kLevels * options.max_sigma);
  const bool told_index = options.timestep_convention == "upstream_index";
  auto per_frame = [&](const at::Tensor& x, double clean) {
    at::Tensor frames = x.unsqueeze(1).expand({latents.size(0), latents.size(1)}).clone();
    frames.narrow(1, 0, given).fill_(clean);
    return frames;
  };
  ScoreInput input;
  input.sigma = per_frame(sigma_of(timestep, options.level), 0);
  input.timestep = per_frame(told_index ? index : network_timestep(timestep, options.level), 0);
  input.noise = draws.noise.narrow(1, 0, latents.size(1));
  input.noisy = diffusion::add_noise(latents, input.noise, input.sigma);
  return input;
}

ScoreTerms score_gradient(models::Backbone& fake, models::Backbone& real, const Rollout& rollout,
                          const ScoreInput& input, const models::Conditions& conditions,
                          const models::Conditions& negative, int64_t given,
                          const ScoreOptions& options) {
  at::NoGradGuard no_grad;
  models::ForwardInput asked;
  asked.latents = input.noisy;
  asked.timestep = input.timestep;
  asked.conditions = conditions;
  ScoreTerms terms;
  terms.fake = guided_flow(fake, asked, negative, standard_scale(options.fake_guidance, options));
  terms.real = guided_flow(real, asked, negative, standard_scale(options.real_guidance, options));
  const at::Tensor difference =
      diffusion::score_difference(terms.fake.flow, terms.real.flow, input.sigma);
  terms.nonfinite = at::isfinite(difference).logical_not().sum();
  // Given frames are left out of the normaliser too.
  const int64_t judged = input.noisy.size(1) - given;
  auto part = [&](const at::Tensor& x) { return x.narrow(1, given, judged); };
  const at::Tensor real_x0 = diffusion::predict_x0(input.noisy, terms.real.flow, input.sigma);
  const auto normalizer = options.normalizer == "global" ? diffusion::Normalizer::kGlobal
                                                         : diffusion::Normalizer::kPerSample;
  terms.gradient = at::zeros_like(difference);
  part(terms.gradient)
      .copy_(diffusion::dmd_gradient(part(difference), part(real_x0), part(rollout.latents),
                                     normalizer));
  return terms;
}

}  // namespace minwm::stages
