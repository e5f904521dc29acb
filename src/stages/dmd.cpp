#include "minwm/stages/dmd.h"

#include <numeric>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/random.h"
#include "minwm/diffusion/losses.h"
#include "minwm/stages/first_frame.h"

namespace minwm::stages {
namespace {

constexpr size_t kGenerator = 0, kCritic = 1;  // places in networks()

Rollout roll_out(const DmdModels& models, const data::Batch& batch, const DmdDraws& draws,
                 const DmdOptions& options) {
  RolloutInput input;
  input.conditions = batch.conditions;
  input.first_latent_of = models.first_latent_of;
  if (draws.given) {
    input.first_latent = batch.latents.narrow(1, 0, 1);
  }
  return draws.rolling ? rolling_rollout(models.generator, input, *draws.rolling, options.rollout)
                       : self_rollout(models.generator, input, draws.rollout, options.rollout);
}

/// First frames of a rollout that the scores see clean.
int64_t given_frames(const Rollout& rollout, const DmdDraws& draws) {
  return draws.given && rollout.first_frame == 0 ? 1 : 0;
}

/// What the scores are told about the rollout's frames. A shortened rollout is a clip of its own: a
/// model that is given first frames through its conditions is given this one's, with the cameras
/// that begin there.
models::Conditions conditions_of(const Rollout& rollout, const data::Batch& batch,
                                 const models::Backbone& score) {
  const int64_t frames = rollout.latents.size(1);
  models::Conditions own = batch.conditions.frames(rollout.first_frame, frames);
  if (rollout.first_frame == 0 || !score.reads_first_latent()) {
    return own;
  }
  if (own.cameras.defined()) {
    const at::Tensor& world_to_camera = own.cameras.world_to_camera;
    own.cameras.world_to_camera =
        at::matmul(world_to_camera, at::linalg_inv(world_to_camera.narrow(1, 0, 1)));
    own.actions = at::Tensor();  // made anew, of the cameras
  }
  const at::Tensor& told = batch.conditions.image_latents;
  if (!told.defined()) {
    return models::conditions_for(score, own, {}, frames);
  }
  const at::Tensor first = rollout.latents.narrow(1, 0, 1).detach();
  auto conditions = models::conditions_for(score, own, first, frames);
  // Clips that kept their first latent to themselves (all conditioning channels zero) still do.
  return batch.conditions.text_to_video
             ? first_frame_only_of(std::move(conditions),
                                   told.narrow(1, 0, 1).flatten(1).ne(0).any(1))
             : conditions;
}

double mean_exit_step(const DmdDraws& draws) {
  if (draws.rolling) {
    return static_cast<double>(draws.rolling->exit_window);
  }
  const auto& steps = draws.rollout.exit_step;
  return std::accumulate(steps.begin(), steps.end(), 0.0) / static_cast<double>(steps.size());
}

/// What both updates log.
std::map<std::string, at::Tensor> logged(const std::string& name, const at::Tensor& loss,
                                         const ScoreInput& input, const DmdDraws& draws) {
  const int64_t last = input.sigma.size(1) - 1;  // never a given frame
  return {{name, loss.detach()},
          {"score_sigma", input.sigma.select(1, last).mean()},
          {"exit_step", at::scalar_tensor(mean_exit_step(draws))}};
}

}  // namespace

void DmdOptions::declare(Options& options) {
  options.add("dmd.ratio", &ratio, "iterations per generator update");
  options.add_choice("dmd.schedule", &schedule, {"wan", "hy"},
                     "a generator iteration also updates the critic (wan), or does not (hy)");
  options.add("dmd.clean_first", &clean_first,
              "probability that an update's rollouts are given their first latent");
  options.add("dmd.rolling", &rolling, "probability that an update's rollouts roll (long videos)");
  score.declare(options);
  rollout.declare(options);
}

void DmdOptions::check() const {
  require(ratio >= 1, "dmd.ratio {}: expected at least 1", ratio);
  require(schedule == "wan" || ratio > 1, "dmd.ratio 1 never updates the critic under schedule hy");
  require(clean_first >= 0 && clean_first <= 1, "dmd.clean_first {}: expected a probability",
          clean_first);
  require(rolling >= 0 && rolling <= 1, "dmd.rolling {}: expected a probability", rolling);
  require(clean_first == 0 || score.timestep_convention == "sigma",
          "dmd.clean_first {}: a given frame has no entry in the table of "
          "dmd.timestep_convention = upstream_index",
          clean_first);
  score.check();
}

DmdDraws draw_dmd(const data::Batch& batch, const StepAddress& address, const std::string& update,
                  const DmdOptions& options) {
  // Decided once for all ranks, micro-batches and samples.
  auto chance = [&](const std::string& what, double probability) {
    return random_uniform({address.seed, "dmd." + update + "." + what,
                           static_cast<uint64_t>(address.step)}) < probability;
  };
  DmdDraws draws;
  if (chance("rolling", options.rolling)) {
    draws.rolling = draw_rolling(batch, address, update, options.rollout);
  } else {
    draws.rollout = draw_rollout(batch, address, update, options.rollout);
  }
  draws.score = draw_score(batch, address, update, options.score);
  draws.given = chance("given", options.clean_first);
  return draws;
}

GeneratorTerms generator_loss(const DmdModels& models, const data::Batch& batch,
                              const models::Conditions& negative, const DmdDraws& draws,
                              const DmdOptions& options) {
  GeneratorTerms terms;
  terms.rollout = roll_out(models, batch, draws, options);
  const int64_t given = given_frames(terms.rollout, draws);
  terms.input = score_input(terms.rollout, draws.score, given, options.score);
  terms.score = score_gradient(models.fake, models.real, terms.rollout, terms.input,
                               conditions_of(terms.rollout, batch, models.fake), negative, given,
                               options.score);
  terms.loss =
      diffusion::dmd_loss(terms.rollout.latents, terms.score.gradient, terms.rollout.loss_mask);
  return terms;
}

CriticTerms critic_loss(const DmdModels& models, const data::Batch& batch, const DmdDraws& draws,
                        const DmdOptions& options) {
  CriticTerms terms;
  {
    at::NoGradGuard no_grad;
    terms.rollout = roll_out(models, batch, draws, options);
  }
  const int64_t given = given_frames(terms.rollout, draws);
  terms.input = score_input(terms.rollout, draws.score, given, options.score);
  models::ForwardInput asked;
  asked.latents = terms.input.noisy;
  asked.timestep = terms.input.timestep;
  asked.conditions = conditions_of(terms.rollout, batch, models.fake);
  terms.flow = models.fake.forward(asked);
  // The critic learns all frames that have noise, those too that the generator's loss leaves out.
  terms.loss = diffusion::critic_loss(terms.flow, terms.rollout.latents, terms.input.noise,
                                      (terms.input.sigma > 0).to(at::kFloat));
  return terms;
}

Dmd::Dmd(std::shared_ptr<models::Backbone> generator, std::shared_ptr<models::Backbone> fake,
         std::shared_ptr<models::Backbone> real, models::Conditions negative, DmdOptions options,
         std::function<at::Tensor(const at::Tensor&)> first_latent_of)
    : generator_(std::move(generator)),
      fake_(std::move(fake)),
      real_(std::move(real)),
      negative_(std::move(negative)),
      options_(std::move(options)),
      first_latent_of_(std::move(first_latent_of)) {
  options_.check();
  for (at::Tensor& p : real_->parameters()) {
    p.requires_grad_(false);
  }
}

std::vector<Network> Dmd::networks() const {
  return {{"model", generator_, nullptr}, {"critic", fake_, nullptr}};
}

std::vector<size_t> Dmd::updates(int64_t step) const {
  if (step % options_.ratio != 0) {
    return {kCritic};
  }
  return options_.schedule == "wan" ? std::vector<size_t>{kGenerator, kCritic}
                                    : std::vector<size_t>{kGenerator};
}

LossOutput Dmd::loss(size_t network, const data::Batch& batch, const StepAddress& address) {
  const DmdModels models{*generator_, *fake_, *real_, first_latent_of_};
  if (network == kCritic) {
    const DmdDraws draws = draw_dmd(batch, address, "critic", options_);
    const CriticTerms terms = critic_loss(models, batch, draws, options_);
    return {terms.loss, logged("critic_loss", terms.loss, terms.input, draws)};
  }
  const DmdDraws draws = draw_dmd(batch, address, "generator", options_);
  const GeneratorTerms terms = generator_loss(models, batch, negative_, draws, options_);
  LossOutput out{terms.loss, logged("generator_loss", terms.loss, terms.input, draws)};
  out.values["dmd_gradient"] = terms.score.gradient.slice(1, draws.given ? 1 : 0).abs().mean();
  out.values["nonfinite"] = terms.score.nonfinite.to(at::kFloat);
  return out;
}

}  // namespace minwm::stages
