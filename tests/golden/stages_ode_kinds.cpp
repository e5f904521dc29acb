// The ODE stage: trajectories of the teacher, and the regression on them.

#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/ode.h"
#include "minwm/stages/ode_pairs.h"
#include "standin.h"

namespace minwm::golden {
namespace {

/// [B, S, C, T, h, w] of the HY cases ⇄ ours, [B, S, T, C, h, w].
at::Tensor swap_state_layout(const at::Tensor& states) {
  return states.transpose(2, 3).contiguous();
}

bool hy(const Case& c) {
  return c.kind.starts_with("stages.hy.");
}

bool bfloat16(const Case& c) {
  return c.config.value("dtype", "float32") == "bfloat16";
}

/// Positions in the list [state 0 … state steps - 1, endpoint, real clip], negative ones from its
/// end.
std::vector<int64_t> saved_positions(const Case& c, int64_t steps) {
  auto saved = c.config.at("saved_indices").get<std::vector<int64_t>>();
  for (int64_t& index : saved) {
    index += index < 0 ? steps + 2 : 0;
  }
  return saved;
}

stages::OdePairOptions pair_options(const Case& c, const std::vector<int64_t>& saved) {
  stages::OdePairOptions options;
  options.steps = integer(c, "steps");
  options.shift = c.config.at("shift").get<double>();
  options.guidance_scale = c.config.at(hy(c) ? "cfg_scale" : "guidance_scale").get<double>();
  options.chunk_frames = integer(c, hy(c) ? "chunk" : "num_frame_per_block");
  options.kept.clear();
  for (const int64_t index : saved) {
    if (index < options.steps) {
      options.kept.push_back(index);
    }
  }
  std::sort(options.kept.begin(), options.kept.end());
  return options;
}

/// Our trajectory (kept states, endpoint, clip) in the order of the case.
at::Tensor in_saved_order(const at::Tensor& trajectory, const std::vector<int64_t>& kept,
                          const std::vector<int64_t>& saved, int64_t steps) {
  std::vector<at::Tensor> states;
  for (const int64_t index : saved) {
    const auto state = std::lower_bound(kept.begin(), kept.end(), index) - kept.begin();
    states.push_back(trajectory.select(1, state + (index > steps ? 1 : 0)));
  }
  return at::stack(states, 1);
}

void replay_trajectory(const Case& c, Report& report) {
  const auto saved = saved_positions(c, integer(c, "steps"));
  stages::OdePairOptions options = pair_options(c, saved);
  const auto model = standin(c);
  stages::OdePairInput input;
  if (hy(c)) {
    input.clean = swap_layout(c.in("latents").to(at::kFloat));
    input.noise = swap_layout(c.in("noise").to(at::kFloat));
    input.conditions = hy_conditions(c, input.clean.size(1));
    input.negative = hy_negative(c);
  } else {
    input.clean = c.in("clean_latent").to(at::kFloat);
    input.noise = c.in("noise").to(at::kFloat);
    input.conditions = standin_conditions(c);
    input.negative = standin_negative(c);
  }
  // The reference's HY line has no cached form.
  const std::string mode = c.config.value("mode", "full");
  const std::string name = hy(c) ? "ode_trajectory" : "ode_latent";
  for (const bool cached : {mode == "blockwise_kv", mode != "blockwise_kv"}) {
    options.cached = cached;
    const at::Tensor ours =
        in_saved_order(ode_pairs(*model, input, options), options.kept, saved, options.steps);
    report.compare(name + (cached ? ", cached" : ", full"), hy(c) ? swap_state_layout(ours) : ours,
                   c.out(name));
  }
}

/// 1000 sigma of the step list as the case has it.
at::Tensor step_timesteps(const Case& c, double shift) {
  const auto list = c.config.at("denoising_step_list").get<std::vector<double>>();
  const bool warp = c.config.value("warp_denoising_step", true);
  std::vector<float> timesteps;
  for (const double t : list) {
    timesteps.push_back(
        static_cast<float>(1000 * diffusion::shift_sigma(t / 1000, warp ? shift : 1)));
  }
  return at::tensor(timesteps);
}

/// What the two lines' cases give a step: trajectories, their level per frame, the real clip.
struct OdeCase {
  data::Batch batch;
  stages::OdeDraws draws;
  stages::OdeOptions options;
};

void finish(OdeCase& ode, const at::Tensor& timesteps) {
  ode.draws.timestep = timesteps.take(ode.draws.step);
}

void replay_wan_step(const Case& c, Report& report) {
  OdeCase ode;
  ode.options.levels.shift = c.config.at("shift").get<double>();
  ode.options.levels.table_sigma = true;
  ode.options.chunk_frames = integer(c, "num_frame_per_block");
  const at::Tensor timesteps = step_timesteps(c, ode.options.levels.shift);
  ode.batch.ode_states = c.in("ode_latent").to(at::kFloat);
  ode.batch.latents = ode.batch.ode_states.select(1, ode.batch.ode_states.size(1) - 1);
  ode.batch.conditions = standin_conditions(c);
  ode.draws.step = c.in("step_index").clone();
  if (c.config.value("i2v", false)) {
    ode.draws.step.select(1, 0).fill_(timesteps.size(0) - 1);
  }
  finish(ode, timesteps);
  const auto model = standin(c);
  const auto terms = stages::ode_loss(*model, ode.batch, ode.draws, ode.options);
  report.compare("denoising_step_list", timesteps, c.out("denoising_step_list"));
  report.compare("noisy_input", terms.noisy, c.out("noisy_input"));
  report.compare("timestep", terms.timestep, c.out("timestep"));
  report.compare("x0_pred", terms.x0, c.out("x0_pred"));
  report.compare("unnormalized_loss", terms.errors, c.out("unnormalized_loss"));
  report.compare("loss", terms.loss, c.out("loss"));
  terms.loss.backward();
  compare_stage_gradients(c, report, *model);
}

void replay_hy_step(const Case& c, Report& report) {
  OdeCase ode;
  ode.options.levels.shift = c.config.at("train_time_shift").get<double>();
  ode.options.levels.bfloat16_timestep = ode.options.levels.bfloat16_sigma = bfloat16(c);
  ode.options.chunk_frames = integer(c, "chunk");
  ode.batch.ode_states = swap_state_layout(c.in("ode_trajectory").to(at::kFloat));
  ode.batch.latents = swap_layout(c.in("latents").to(at::kFloat));
  const int64_t clips = ode.batch.latents.size(0), frames = ode.batch.latents.size(1);
  ode.batch.conditions = hy_conditions(c, frames);
  const at::Tensor step = c.in("step_index").view({-1, 1});
  ode.draws.step = step.expand({clips, frames});
  finish(ode, step_timesteps(c, ode.options.levels.shift));
  report.check("i2v_mask counts everything", c.in("i2v_mask").eq(1).all().item<bool>());
  const auto model = standin(c);
  const auto terms = stages::ode_loss(*model, ode.batch, ode.draws, ode.options);
  const at::Tensor endpoint = ode.batch.ode_states.select(1, ode.batch.ode_states.size(1) - 2);
  report.compare("noisy", swap_layout(terms.noisy), c.out("noisy").to(at::kFloat));
  report.compare("target", swap_layout(endpoint), c.out("target").to(at::kFloat));
  report.compare("model_timestep", terms.timestep, c.out("model_timestep"));
  report.compare("sigmas", terms.sigma.select(1, 0), c.out("sigmas").to(at::kFloat));
  report.compare("model_pred", swap_layout(terms.flow), c.out("model_pred"));
  report.compare("loss", terms.loss, c.out("loss"));
  terms.loss.backward();
  compare_stage_gradients(c, report, *model);
}

const bool registered[] = {register_kind("stages.wan.ode.trajectory", replay_trajectory),
                           register_kind("stages.hy.ode.trajectory", replay_trajectory),
                           register_kind("stages.wan.ode.step", replay_wan_step),
                           register_kind("stages.hy.ode.step", replay_hy_step)};

}  // namespace
}  // namespace minwm::golden
