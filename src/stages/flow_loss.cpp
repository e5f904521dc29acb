#include "minwm/stages/flow_loss.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/noise.h"

namespace minwm::stages {

void FlowOptions::declare(Options& options, const std::string& section, bool causal) {
  options.add(section + ".shift", &shift, "noise levels are shift(u) = s u / (1 + (s - 1) u)");
  options.add_choice(section + ".density", &density, {"uniform", "logit_normal", "mode"},
                     "density of u");
  options.add_choice(section + ".weighting", &weighting, {"none", "wan_bell"},
                     "weight of a noise level in the loss");
  options.add(section + ".text_dropout", &text_dropout,
              "probability that a clip's text is dropped");
  options.add(section + ".clean_first", &clean_first,
              "probability that a clip's first latent is given");
  if (causal) {
    options.add(section + ".chunk_frames", &chunk_frames, "latent frames of a chunk");
    options.add(section + ".clean_noise", &clean_noise,
                "largest sigma the clean half is noised with; 0 = off");
  }
}

FlowDraws draw_flow(const data::Batch& batch, const StepAddress& address,
                    const FlowOptions& options, bool causal) {
  const int64_t frames = batch.latents.size(1);
  const std::string stage = causal ? "teacher_forcing" : "bidirectional";
  const Density density = parse_density(options.density);
  // One level per chunk, repeated over its frames; a bidirectional clip is one chunk.
  const int64_t chunk = causal ? options.chunk_frames : frames;
  require(frames % chunk == 0,
          "teacher forcing: {} latent frames are not a multiple of the chunk of {}", frames, chunk);
  auto levels = [&](const std::string& purpose) {
    const at::Tensor u = sample_uniform(frames / chunk, batch, address, purpose);
    const at::Tensor extra = sample_uniform(frames / chunk, batch, address, purpose + ".extra");
    return density_sample(density, u, extra).repeat_interleave(chunk, 1);
  };
  FlowDraws draws;
  draws.noise = sample_noise(batch.latents, batch, address, stage + ".noise");
  draws.sigma = diffusion::shift_sigma(levels(stage + ".sigma"), options.shift);
  if (options.clean_first > 0) {
    const at::Tensor given =
        sample_uniform(1, batch, address, stage + ".given") < options.clean_first;
    draws.sigma.narrow(1, 0, 1).masked_fill_(given, 0);
  }
  if (options.clean_noise > 0) {
    draws.clean_sigma = levels(stage + ".clean_sigma") * options.clean_noise;
  }
  if (options.text_dropout > 0) {
    const at::Tensor u = sample_uniform(1, batch, address, stage + ".text");
    draws.text_kept = (u >= options.text_dropout).to(at::kFloat).unsqueeze(2);
  }
  return draws;
}

FlowTerms flow_loss(models::Backbone& model, const data::Batch& batch, const FlowDraws& draws,
                    const FlowOptions& options, bool causal) {
  models::ForwardInput input;
  input.latents = diffusion::add_noise(batch.latents, draws.noise, draws.sigma);
  input.timestep = draws.sigma * 1000;
  input.conditions = batch.conditions;
  if (draws.text_kept.defined()) {
    input.conditions.text = batch.conditions.text * draws.text_kept;
  }
  if (causal) {
    input.chunk_frames = options.chunk_frames;
    input.clean_latents = batch.latents;
    if (draws.clean_sigma.defined()) {
      input.clean_latents = diffusion::add_noise(batch.latents, draws.noise, draws.clean_sigma);
      input.clean_timestep = draws.clean_sigma * 1000;
    }
  }
  FlowTerms terms;
  terms.noisy = input.latents;
  terms.timestep = input.timestep;
  terms.flow = model.forward(input);
  at::Tensor error =
      (terms.flow - (draws.noise - batch.latents)).square().mean({2, 3, 4});  // [B, T]
  if (options.weighting == "wan_bell") {
    diffusion::FlowMatchTable::Options table;
    table.shift = options.shift;
    error = error * diffusion::FlowMatchTable(table).weight(input.timestep);
  }
  const at::Tensor noised = (draws.sigma > 0).to(at::kFloat);
  terms.loss = ((error * noised).sum(1) / noised.sum(1).clamp_min(1)).mean();
  return terms;
}

}  // namespace minwm::stages
