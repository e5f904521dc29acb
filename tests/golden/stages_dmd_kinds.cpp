// Distribution matching: the generator's and the critic's step of both lines, and Wan's loop.

#include <algorithm>

#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/dmd.h"
#include "minwm/train/ema.h"
#include "minwm/train/optimizer.h"
#include "standin.h"

namespace minwm::golden {
namespace {

/// The three networks of a case, the trained ones recording their calls.
struct Networks {
  explicit Networks(const Case& c)
      : generator(standin(c, "generator/")),
        fake(standin(c, "fake_score/")),
        real(standin(c, "real_score/")) {
    generator->record = true;
  }
  stages::DmdModels models() const {
    // The cases' stand-in VAE.
    return {*generator, *fake, *real,
            [](const at::Tensor& latents) { return latents.slice(1, -1) * 0.5 + 0.1; }};
  }
  std::shared_ptr<StandIn> generator, fake, real;
};

stages::DmdOptions wan_options(const Case& c) {
  const auto& config = c.config;
  stages::DmdOptions o;
  o.ratio = config.value("dfake_gen_update_ratio", int64_t{5});
  o.rollout.step_list = config.at("denoising_step_list").get<std::vector<double>>();
  std::erase(o.rollout.step_list, 0);
  o.rollout.shift = o.score.level.shift = config.at("timestep_shift").get<double>();
  if (!config.value("warp_denoising_step", true)) {  // ours is always shifted: shift it back first
    for (double& d : o.rollout.step_list) {
      d = 1000 * diffusion::shift_sigma(d / 1000, 1 / o.rollout.shift);
    }
  }
  o.rollout.chunk_frames = integer(c, "num_frame_per_block");
  o.rollout.window_frames = integer(c, "F");
  o.rollout.same_exit = config.value("same_step_across_blocks", true);
  o.rollout.last_step_only = config.value("last_step_only", false);
  o.rollout.table_sigma = o.score.level.table_sigma = true;
  o.rollout.commit_last = true;
  o.score.min_timestep = config.value("min_score_timestep", 0.0);
  o.score.ts_schedule = config.value("ts_schedule", false);
  o.score.ts_schedule_max = config.value("ts_schedule_max", false);
  o.score.min_sigma = config.value("min_step", 20.0) / 1000;
  o.score.max_sigma = config.value("max_step", 980.0) / 1000;
  o.score.guidance_form = "plus";
  o.score.real_guidance = config.at("real_guidance_scale").get<double>();
  o.score.fake_guidance = config.value("fake_guidance_scale", 0.0);
  o.score.normalizer = config.value("normalizer", "per_sample") == "global" ? "global" : "sample";
  return o;
}

stages::DmdOptions hy_options(const Case& c) {
  const auto& config = c.config;
  stages::DmdOptions o;
  o.rollout.mode = "full";
  o.rollout.solver = config.value("solver", "cm") == "euler" ? "euler" : "renoise";
  o.rollout.step_list = config.at("dmd_denoising_steps").get<std::vector<double>>();
  o.rollout.shift = o.score.level.shift = config.at("flow_shift").get<double>();
  o.rollout.chunk_frames = integer(c, "num_frame_per_block");
  o.rollout.window_frames = integer(c, "T");
  o.rollout.gradient_frames = config.value("enable_gradient_masking", true)
                                  ? config.value("gradient_mask_last_n_frames", int64_t{0})
                                  : 0;
  o.rollout.context_noise = config.value("context_noise", 0.0);
  o.rollout.text_gradient = false;
  o.rollout.commit_last = true;
  o.score.ts_schedule = o.score.ts_schedule_max = true;
  o.score.truncate_index = true;
  o.score.min_index = config.value("min_timestep_ratio", 0.0);
  o.score.max_index = config.value("max_timestep_ratio", 1.0);
  o.score.min_sigma = 0;
  o.score.max_sigma = 1;
  o.score.timestep_convention = config.value("timestep_convention", "sigma");
  o.score.real_guidance = config.at("cfg_scale").get<double>();
  o.score.normalizer = config.value("normalizer", "global") == "global" ? "global" : "sample";
  return o;
}

/// "b##_s#" below in/<prefix>renoise/.
std::string renoise_name(int64_t chunk, int64_t step) {
  return fmt::format("renoise/b{:02}_s{}", chunk, step);
}

/// Draws of a Wan update whose inputs begin with `prefix`.
stages::DmdDraws wan_draws(const Case& c, const std::string& prefix,
                           const stages::DmdOptions& options) {
  stages::DmdDraws draws;
  const int64_t chunk = options.rollout.chunk_frames;
  at::Tensor noise = c.in(prefix + "rollout_noise").to(at::kFloat);
  if (c.has("in/" + prefix + "num_generated_blocks")) {
    noise = noise.narrow(1, 0, c.in(prefix + "num_generated_blocks").item<int64_t>() * chunk);
  }
  draws.rollout.noise = noise;
  const at::Tensor exits = c.in(prefix + "exit_index");
  const auto last = static_cast<int64_t>(options.rollout.step_list.size()) - 1;
  for (int64_t i = 0; i < noise.size(1) / chunk; ++i) {
    draws.rollout.exit_step.push_back(
        options.rollout.last_step_only
            ? last
            : exits.flatten()[options.rollout.same_exit ? 0 : i].item<int64_t>());
  }
  draws.rollout.renoise = [&c, prefix](int64_t block, int64_t step) {
    return c.in(prefix + renoise_name(block, step)).to(at::kFloat);
  };
  draws.score.level = c.in(prefix + "score_timestep_int").flatten();
  draws.score.noise = c.in(prefix + "score_noise").to(at::kFloat);
  return draws;
}

stages::DmdDraws hy_draws(const Case& c, const stages::DmdOptions& options) {
  stages::DmdDraws draws;
  draws.rollout.noise = swap_layout(c.in("rollout_noise").to(at::kFloat));
  draws.rollout.exit_step.assign(
      static_cast<size_t>(draws.rollout.noise.size(1) / options.rollout.chunk_frames),
      c.in("k_i").item<int64_t>());
  draws.rollout.renoise = [&c](int64_t block, int64_t step) {
    return swap_layout(c.in(renoise_name(block, step)).to(at::kFloat));
  };
  draws.score.u = c.in("score_u").flatten();
  draws.score.noise = swap_layout(c.in("score_noise").to(at::kFloat));
  return draws;
}

data::Batch batch_of(const models::Conditions& conditions, const stages::DmdDraws& draws) {
  data::Batch batch;
  batch.latents = at::zeros_like(draws.rollout.noise);  // only its shape may matter
  batch.conditions = conditions;
  return batch;
}

bool is_hy(const Case& c) {
  return c.kind.starts_with("stages.hy.");
}

/// Ours in the layout of the case.
at::Tensor as_in_case(const Case& c, const at::Tensor& x) {
  return is_hy(c) ? swap_layout(x) : x;
}

/// The generator's calls: call/###/{x,t,flow}, call_start or call_cache, call_grad.
void compare_calls(const Case& c, Report& report, const std::vector<Call>& calls,
                   const stages::RolloutOptions& options) {
  std::vector<int64_t> start, grad, commit;
  at::Tensor expected_grad = c.out("call_grad").clone();
  for (size_t i = 0; i < calls.size(); ++i) {
    const Call& call = calls[i];
    const std::string name = fmt::format("call/{:03}/", i);
    if (!c.has("out/" + name + "x")) {
      report.check(name, false, "the reference makes no such call");
      return;
    }
    report.compare(name + "x", as_in_case(c, call.x), c.out(name + "x"));
    report.compare(name + "t", call.t, c.out(name + "t"));
    if (c.has("out/" + name + "flow")) {
      report.compare(name + "flow", as_in_case(c, call.flow), c.out(name + "flow"));
    }
    start.push_back(call.start);
    grad.push_back(call.grad ? 1 : 0);
    commit.push_back(call.commit ? 1 : 0);
    // HY's reference records gradients for chunks that its mask takes out again; we do not.
    const int64_t end = call.start + options.chunk_frames;
    if (options.mode == "full" && options.gradient_frames > 0 &&
        end <= options.window_frames - options.gradient_frames) {
      expected_grad[static_cast<int64_t>(i)] = 0;
    }
  }
  if (c.has("out/call_start")) {
    report.equal("call_start", at::tensor(start), c.out("call_start"));
  }
  if (c.has("out/call_cache")) {
    report.equal("call_cache", at::tensor(commit), c.out("call_cache"));
  }
  report.equal("call_grad", at::tensor(grad), expected_grad);
  if (c.has("out/call0_hidden")) {
    report.compare("call0_hidden", as_in_case(c, calls.at(0).hidden), c.out("call0_hidden"));
  }
}

train::OptimizerOptions optimizer_options(const Case& c, const char* lr = "lr") {
  const auto& o = c.config.at("optimizer");
  const bool muon = o.at("type") == "muon";
  const auto betas = o.at(muon ? "adamw_betas" : "betas").get<std::vector<double>>();
  train::OptimizerOptions options;
  options.name = muon ? "muon" : "adamw";
  options.lr = o.at(lr).get<double>();
  options.beta1 = betas.at(0);
  options.beta2 = betas.at(1);
  options.eps = o.at(muon ? "adamw_eps" : "eps").get<double>();
  options.weight_decay = o.at("weight_decay").get<double>();
  options.clip = o.at("max_grad_norm").get<double>();
  options.muon_momentum = o.value("momentum", options.muon_momentum);
  return options;
}

train::NamedParameters trained(const torch::nn::Module& module) {
  train::NamedParameters parameters;
  for (const auto& item : module.named_parameters()) {
    parameters.emplace_back(item.key(), item.value());
  }
  return parameters;
}

void compare_gradient_free(Report& report, const std::string& name,
                           const torch::nn::Module& module) {
  const auto parameters = module.parameters();
  report.check(name + " has no gradient",
               std::none_of(parameters.begin(), parameters.end(),
                            [](const at::Tensor& p) { return p.grad().defined(); }));
}

/// Backward, clip, step: gradients, norm and parameters of the trained network.
void compare_step(const Case& c, Report& report, const at::Tensor& loss, StandIn& module) {
  report.compare("loss", loss.detach(), c.out("loss").to(at::kFloat));
  loss.backward();
  compare_stage_gradients(c, report, module);
  const auto options = optimizer_options(c);
  const auto parameters = trained(module);
  const at::Tensor norm = train::gradient_norm(parameters);
  report.compare("grad_norm", norm.to(at::kFloat), c.out("grad_norm").to(at::kFloat));
  train::scale_gradients(parameters, norm.item<double>(), options.clip);
  train::make_optimizer(options, parameters)->step(options.lr);
  compare_updated(c, report, "param_after/", named_tensors(module), "", options.lr, 1,
                  c.config.value("param_after_atol", c.atol));
}

void compare_input(const Case& c, Report& report, const stages::ScoreInput& input) {
  const std::string name = is_hy(c) ? "score_timestep_index" : "score_timestep";
  report.compare(name, input.timestep, c.out(name).to(at::kFloat));
  report.compare("score_noisy", as_in_case(c, input.noisy), c.out("score_noisy"));
}

void compare_flow(const Case& c, Report& report, const std::string& name, const at::Tensor& ours) {
  if (c.has("out/" + name)) {
    report.check(name, ours.defined(), "was not computed");
    report.compare(name, as_in_case(c, ours), c.out(name));
  }
}

/// The case's options, draws and conditions.
struct Step {
  explicit Step(const Case& c)
      : options(is_hy(c) ? hy_options(c) : wan_options(c)),
        draws(is_hy(c) ? hy_draws(c, options) : wan_draws(c, "", options)),
        batch(batch_of(
            is_hy(c) ? hy_conditions(c, draws.rollout.noise.size(1)) : standin_conditions(c),
            draws)),
        negative(is_hy(c) ? hy_negative(c) : standin_negative(c)) {}
  stages::DmdOptions options;
  stages::DmdDraws draws;
  data::Batch batch;
  models::Conditions negative;
};

void compare_step_list(const Case& c, Report& report, const stages::DmdOptions& options) {
  if (c.has("out/denoising_step_list")) {
    const auto ours = stages::rollout_timesteps(options.rollout.step_list, options.rollout.shift);
    report.compare("denoising_step_list", at::tensor(ours, at::kFloat),
                   c.out("denoising_step_list").to(at::kFloat));
  }
}

void replay_generator(const Case& c, Report& report) {
  const Networks nets(c);
  const Step step(c);
  const auto terms =
      stages::generator_loss(nets.models(), step.batch, step.negative, step.draws, step.options);
  compare_step_list(c, report, step.options);
  compare_calls(c, report, nets.generator->calls, step.options.rollout);
  compare_input(c, report, terms.input);
  if (c.has("out/pred")) {
    report.compare("pred", as_in_case(c, terms.rollout.latents.detach()), c.out("pred"));
  }
  compare_flow(c, report, "fake_flow", terms.score.fake.conditional);
  compare_flow(c, report, "fake_flow_cond", terms.score.fake.conditional);
  compare_flow(c, report, "fake_flow_uncond", terms.score.fake.unconditional);
  compare_flow(c, report, "real_flow_cond", terms.score.real.conditional);
  compare_flow(c, report, "real_flow_uncond", terms.score.real.unconditional);
  if (c.has("out/dmdtrain_gradient_norm")) {
    report.compare("dmdtrain_gradient_norm", terms.score.gradient.abs().mean(),
                   c.out("dmdtrain_gradient_norm").to(at::kFloat));
  }
  compare_step(c, report, terms.loss, *nets.generator);
  compare_gradient_free(report, "the fake score", *nets.fake);
  compare_gradient_free(report, "the real score", *nets.real);
}

void replay_critic(const Case& c, Report& report) {
  const Networks nets(c);
  const Step step(c);
  const auto terms = stages::critic_loss(nets.models(), step.batch, step.draws, step.options);
  compare_step_list(c, report, step.options);
  compare_calls(c, report, nets.generator->calls, step.options.rollout);
  compare_input(c, report, terms.input);
  compare_flow(c, report, "fake_flow", terms.flow.detach());
  compare_step(c, report, terms.loss, *nets.fake);
  compare_gradient_free(report, "the generator", *nets.generator);
}

/// A network in the loop, with its optimizer.
struct Trained {
  Trained(const Case& c, std::shared_ptr<StandIn> network, const char* lr)
      : module(std::move(network)),
        options(optimizer_options(c, lr)),
        parameters(trained(*module)),
        optimizer(train::make_optimizer(options, parameters)) {}
  /// Returns the norm before clipping.
  double update(const at::Tensor& loss) {
    module->zero_grad();
    loss.backward();
    const auto norm = train::gradient_norm(parameters).item<double>();
    train::scale_gradients(parameters, norm, options.clip);
    optimizer->step(options.lr);
    return norm;
  }
  std::shared_ptr<StandIn> module;
  train::OptimizerOptions options;
  train::NamedParameters parameters;
  std::unique_ptr<train::Optimizer> optimizer;
};

void replay_loop(const Case& c, Report& report) {
  const Networks nets(c);
  const auto options = wan_options(c);
  const stages::Dmd stage(nets.generator, nets.fake, nets.real, standin_negative(c), options);
  Trained generator(c, nets.generator, "lr"), fake(c, nets.fake, "lr_critic");
  train::EmaOptions average;
  average.decay = c.config.at("ema_weight").get<double>();
  average.start = integer(c, "ema_start_step");
  train::Ema ema(average, generator.parameters);
  std::vector<int64_t> is_generator, iteration;
  std::vector<double> losses, norms;
  for (int64_t k = 0; k < integer(c, "iterations"); ++k) {
    for (const size_t network : stage.updates(k)) {
      const std::string update = fmt::format("{:02}/", losses.size());
      const auto draws = wan_draws(c, "step/" + update, options);
      const auto batch = batch_of(standin_conditions(c, "batch/" + update), draws);
      const bool first = network == 0;
      const at::Tensor loss =
          first ? stages::generator_loss(nets.models(), batch, standin_negative(c), draws, options)
                      .loss
                : stages::critic_loss(nets.models(), batch, draws, options).loss;
      losses.push_back(loss.item<double>());
      norms.push_back((first ? generator : fake).update(loss));
      if (first) {
        ema.update();
      }
      is_generator.push_back(first ? 1 : 0);
      iteration.push_back(k);
    }
    ema.start_if_due(k + 1);
  }
  report.equal("is_generator", at::tensor(is_generator), c.out("is_generator"));
  report.equal("iteration", at::tensor(iteration), c.out("iteration"));
  report.compare("loss", at::tensor(losses, at::kFloat), c.out("loss").to(at::kFloat));
  report.compare("grad_norm", at::tensor(norms, at::kFloat), c.out("grad_norm").to(at::kFloat));
  const auto updates = static_cast<int64_t>(losses.size());
  compare_updated(c, report, "generator/", named_tensors(*nets.generator), "", generator.options.lr,
                  updates, c.atol);
  compare_updated(c, report, "fake_score/", named_tensors(*nets.fake), "", fake.options.lr, updates,
                  c.atol);
  compare_updated(c, report, "ema/", ema.state(), "", generator.options.lr, updates, c.atol);
}

const bool registered[] = {register_kind("stages.wan.dmd.generator_step", replay_generator),
                           register_kind("stages.wan.dmd.critic_step", replay_critic),
                           register_kind("stages.wan.dmd.loop", replay_loop),
                           register_kind("stages.hy.dmd.generator_step", replay_generator),
                           register_kind("stages.hy.dmd.critic_step", replay_critic)};

}  // namespace
}  // namespace minwm::golden
