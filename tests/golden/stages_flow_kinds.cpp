// One flow-matching training step: bidirectional and teacher forcing, both lines.

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/flow_loss.h"
#include "standin.h"

namespace minwm::golden {
namespace {

using stages::FlowDraws;
using stages::FlowOptions;

/// Wan's draws are indices into the table of training levels.
void replay_wan(const Case& c, Report& report) {
  const bool causal = c.config.at("teacher_forcing").get<bool>();
  FlowOptions options;
  options.shift = c.config.at("shift").get<double>();
  options.weighting = "wan_bell";
  options.table_sigma = true;
  options.bfloat16_timestep = c.config.at("timestep_dtype").get<std::string>() == "bfloat16";
  options.chunk_frames = integer(c, "num_frame_per_block");
  require(integer(c, "num_train_timesteps") == 1000, "num_train_timesteps other than 1000");
  data::Batch batch;
  batch.latents = c.in("clean_latent");
  batch.conditions = standin_conditions(c);
  const at::Tensor levels = stages::training_table(options).sigmas();
  FlowDraws draws;
  draws.noise = c.in("noise");
  draws.sigma = levels.take(c.in("timestep_index"));
  if (causal && integer(c, "noise_augmentation_max_timestep") > 0) {
    draws.clean_sigma = levels.take(c.in("aug_timestep_index"));
  }
  const auto model = standin(c);
  const auto terms = stages::flow_loss(*model, batch, draws, options, causal);
  terms.loss.backward();
  report.compare("timestep", terms.timestep, c.out("timestep"));
  report.compare("noisy_latent", terms.noisy, c.out("noisy_latent"));
  report.compare("flow_pred", terms.flow, c.out("flow_pred"));
  report.compare("x0_pred", diffusion::predict_x0(terms.noisy, terms.flow, terms.sigma),
                 c.out("x0_pred"));
  report.compare("weight", terms.weight, c.out("weight"));
  report.compare("loss", terms.loss, c.out("loss"));
  compare_stage_gradients(c, report, *model);
}

/// HY's draws index a table of 1000 - index, unshifted: [0, 1) → the level after the shift,
/// truncated to an entry.
at::Tensor hy_sigma(const at::Tensor& u, double shift) {
  const at::Tensor index = (u * 1000).floor();
  const at::Tensor shifted = (1000 - 1000 * diffusion::shift_sigma(index / 1000, shift)).trunc();
  return (1000 - shifted.clamp_max(999)) / 1000;
}

FlowOptions hy_options(const Case& c, bool causal) {
  FlowOptions options;
  options.shift = c.config.at("scheduler_shift").get<double>();
  options.chunk_frames = integer(c, "chunk");
  options.compare = c.config.at("precondition_outputs").get<bool>() ? "clean" : "flow";
  // The reference keeps four frames, whatever the chunk.
  constexpr int64_t kWindowOut = 4;
  options.last_frames =
      causal && integer(c, "select_window_out_flag") == 1 ? kWindowOut : int64_t{0};
  options.bfloat16_timestep = options.bfloat16_sigma =
      c.config.at("dtype").get<std::string>() == "bfloat16";
  return options;
}

FlowDraws hy_draws(const Case& c, int64_t clips, int64_t frames) {
  FlowDraws draws;
  draws.noise = swap_layout(c.in("noise"));
  draws.sigma = hy_sigma(c.in("u"), c.config.at("train_time_shift").get<double>())
                    .unsqueeze(1)
                    .expand({clips, frames});
  draws.mask = swap_layout(c.in("i2v_mask"));
  const auto augmented = integer(c, "noise_augmentation_max_timestep");
  if (augmented > 0) {
    const at::Tensor index = (c.in("aug_u") * augmented).floor();
    draws.clean_sigma = ((1000 - index) / 1000).view({clips, frames});
  }
  return draws;
}

void replay_hy(const Case& c, Report& report) {
  const bool causal = c.config.at("teacher_forcing").get<bool>();
  const FlowOptions options = hy_options(c, causal);
  require(options.shift == 1, "scheduler_shift {}: HY's training table is unshifted",
          options.shift);
  data::Batch batch;
  batch.latents = swap_layout(c.in("latents"));
  const int64_t frames = batch.latents.size(1);
  batch.conditions = hy_conditions(c, frames);
  const FlowDraws draws = hy_draws(c, batch.latents.size(0), frames);
  const auto model = standin(c);
  const auto terms = stages::flow_loss(*model, batch, draws, options, causal);
  terms.loss.backward();
  report.compare("timesteps", draws.sigma * 1000, c.out("timesteps"));
  report.compare("model_timestep", terms.timestep, c.out("model_timestep"));
  report.compare("sigmas", terms.sigma, c.out("sigmas"));
  report.compare("noisy", swap_layout(terms.noisy), c.out("noisy"));
  report.compare("model_pred", swap_layout(terms.flow), c.out("model_pred"));
  report.compare("loss", terms.loss, c.out("loss"));
  if (causal) {
    report.compare("clean_x", swap_layout(terms.clean), c.out("clean_x"));
    report.compare(
        "aug_timesteps",
        terms.clean_timestep.defined() ? terms.clean_timestep : at::zeros_like(terms.timestep),
        c.out("aug_timesteps"));
  }
  compare_stage_gradients(c, report, *model);
}

const bool registered[] = {register_kind("stages.wan.bidir.step", replay_wan),
                           register_kind("stages.wan.ar_tf.step", replay_wan),
                           register_kind("stages.hy.bidir.step", replay_hy),
                           register_kind("stages.hy.ar_tf.step", replay_hy)};

}  // namespace
}  // namespace minwm::golden
