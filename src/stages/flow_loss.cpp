#include "minwm/stages/flow_loss.h"

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/diffusion/losses.h"
#include "minwm/stages/noise.h"
#include "minwm/stages/text_dropout.h"

namespace minwm::stages {

void FlowOptions::declare(Options& options, const std::string& section, bool causal) {
  options.add(section + ".shift", &shift, "noise levels are shift(u) = s u / (1 + (s - 1) u)");
  options.add_choice(section + ".density", &density, {"uniform", "logit_normal", "mode"},
                     "density of u");
  options.add_choice(section + ".weighting", &weighting, {"none", "wan_bell"},
                     "weight of a noise level in the loss");
  options.add_choice(section + ".compare", &compare, {"flow", "clean"},
                     "compare the flow, or the clean latents it predicts");
  options.add(section + ".text_dropout", &text_dropout,
              "probability that a clip's text is dropped");
  options.add(section + ".clean_first", &clean_first,
              "probability that a clip's first latent is given");
  LevelOptions::declare(options, section);
  options.add(section + ".bfloat16_sigma", &bfloat16_sigma,
              "round sigma to bfloat16, as the HY reference");
  if (causal) {
    options.add(section + ".chunk_frames", &chunk_frames, "latent frames of a chunk");
    options.add(section + ".per_chunk", &per_chunk,
                "a noise level per chunk, not one per clip (HY reference)");
    options.add(section + ".clean_noise", &clean_noise,
                "largest sigma the clean half is noised with; 0 = off");
    options.add(section + ".last_frames", &last_frames,
                "only the last so many frames count in the loss; 0 = all");
  }
}

FlowDraws draw_flow(const data::Batch& batch, const StepAddress& address,
                    const FlowOptions& options, bool causal) {
  const int64_t frames = batch.latents.size(1);
  const std::string stage = causal ? "teacher_forcing" : "bidirectional";
  const Density density = parse_density(options.density);
  require(!causal || frames % options.chunk_frames == 0,
          "teacher forcing: {} latent frames are not a multiple of the chunk of {}", frames,
          options.chunk_frames);
  // One level per chunk, repeated over its frames, or one for all.
  const int64_t chunk = causal && options.per_chunk ? options.chunk_frames : frames;
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
  draws.text_kept = draw_text_kept(batch, address, stage + ".text", options.text_dropout);
  return draws;
}

namespace {

/// A given frame is exactly clean: Wan's table has no sigma of 0.
at::Tensor level(const at::Tensor& sigma, const FlowOptions& options) {
  return at::where(sigma > 0, sigma_of(sigma * 1000, options), sigma);
}

/// What the network is asked.
models::ForwardInput flow_input(const data::Batch& batch, const FlowDraws& draws,
                                const FlowOptions& options, bool causal) {
  models::ForwardInput input;
  input.latents = noised(batch.latents, draws.noise, level(draws.sigma, options), options);
  input.timestep = network_timestep(draws.sigma * 1000, options);
  input.conditions = keep_text(batch.conditions, draws.text_kept, options.negative);
  if (causal) {
    input.chunk_frames = options.chunk_frames;
    input.clean_latents = batch.latents;
    if (draws.clean_sigma.defined()) {
      input.clean_latents =
          noised(batch.latents, draws.noise, level(draws.clean_sigma, options), options);
      input.clean_timestep = network_timestep(draws.clean_sigma * 1000, options);
    }
  }
  return input;
}

/// [B, T] of 0 and 1: frames that count.
at::Tensor counted_frames(const FlowDraws& draws, const FlowOptions& options) {
  const at::Tensor noised = (draws.sigma > 0).to(at::kFloat);
  return options.last_frames > 0
             ? noised * diffusion::last_frames(noised.size(1), options.last_frames).to(noised)
             : noised;
}

}  // namespace

FlowTerms flow_loss(models::Backbone& model, const data::Batch& batch, const FlowDraws& draws,
                    const FlowOptions& options, bool causal) {
  const models::ForwardInput input = flow_input(batch, draws, options, causal);
  FlowTerms terms;
  terms.noisy = input.latents;
  terms.timestep = input.timestep;
  terms.sigma = level(draws.sigma, options);
  terms.clean = input.clean_latents;
  terms.clean_timestep = input.clean_timestep;
  terms.flow = model.forward(input);
  const bool clean = options.compare == "clean";
  const at::Tensor ours =
      clean ? diffusion::predict_x0(terms.noisy, terms.flow, terms.sigma) : terms.flow;
  const at::Tensor target =
      clean ? batch.latents : diffusion::flow_target(batch.latents, draws.noise);
  at::Tensor error = (ours.to(at::kFloat) - target.to(at::kFloat)).square();
  if (options.weighting == "wan_bell") {
    terms.weight = training_table(options).weight(terms.timestep);
    error = error * diffusion::per_frame(terms.weight, error);
  }
  const at::Tensor counted = counted_frames(draws, options);
  if (draws.mask.defined()) {
    terms.loss = diffusion::masked_mean(
        error, draws.mask.to(at::kFloat) * diffusion::per_frame(counted, error));
  } else {
    terms.loss = ((error.mean({2, 3, 4}) * counted).sum(1) / counted.sum(1).clamp_min(1)).mean();
  }
  return terms;
}

}  // namespace minwm::stages
