// Schedules, samplers and the formulas of the stages. Spec stages 2, 3, 20.

#include "case.h"
#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/diffusion/guidance.h"
#include "minwm/diffusion/hy_discrete.h"
#include "minwm/diffusion/losses.h"
#include "minwm/diffusion/sampler.h"
#include "minwm/train/ema.h"

namespace minwm::golden {
namespace {

namespace df = minwm::diffusion;

diffusion::FlowMatchTable flow_match_table(const Case& c) {
  const auto& config = c.config;
  df::FlowMatchTable::Options o;
  o.steps = config.value("num_steps", o.steps);
  o.shift = config.value("shift", o.shift);
  o.sigma_max = config.value("sigma_max", o.sigma_max);
  o.sigma_min = config.value("sigma_min", o.sigma_min);
  o.strength = config.value("denoising_strength", o.strength);
  o.extra_one_step = config.value("extra_one_step", o.extra_one_step);
  o.inverse_timesteps = config.value("inverse_timesteps", o.inverse_timesteps);
  o.reverse_sigmas = config.value("reverse_sigmas", o.reverse_sigmas);
  return df::FlowMatchTable(o);
}

void replay_flow_match_table(const Case& c, Report& report) {
  const auto table = flow_match_table(c);
  report.compare("sigmas", table.sigmas(), c.out("sigmas"));
  report.compare("timesteps", table.timesteps(), c.out("timesteps"));
  if (c.has("out/training_weights")) {
    report.compare("training_weights", table.training_weights(), c.out("training_weights"));
  }
  for (const auto& name : c.under("out/warp/")) {
    const auto steps = c.config.at("warp_" + name).get<std::vector<double>>();
    report.compare("warp/" + name, table.warp(steps), c.out("warp/" + name));
  }
}

void replay_flow_match_ops(const Case& c, Report& report) {
  const auto table = flow_match_table(c);
  const at::Tensor x0 = c.in("x0"), noise = c.in("noise"), flow = c.in("flow"),
                   t = c.in("timestep"), step_t = c.in("step_timestep");
  report.compare("noisy", table.add_noise(x0, noise, t), c.out("noisy"));
  report.compare("target", df::flow_target(x0, noise), c.out("target"));
  report.compare("weight", table.weight(t), c.out("weight"));
  report.equal("nearest_index", table.nearest(t), c.out("nearest_index"));
  report.compare("x0_from_flow", table.x0_from_flow(flow, x0, t), c.out("x0_from_flow"));
  report.compare("flow_from_x0", table.flow_from_x0(flow, x0, t), c.out("flow_from_x0"));
  report.compare("step_prev", table.euler_step(flow, step_t, x0, false), c.out("step_prev"));
  report.compare("step_final", table.euler_step(flow, step_t, x0, true), c.out("step_final"));
}

void replay_hy_table(const Case& c, Report& report) {
  require(c.config.value("reverse", true), "{}: only reverse schedules are in use", c.path);
  const double shift = c.config.at("shift").get<double>();
  const df::HyDiscreteTable table(shift);
  report.compare("init_sigmas", table.unshifted(), c.out("init_sigmas"));
  report.compare("init_timesteps", table.timesteps(), c.out("init_timesteps"));
  report.compare("train_sigmas", table.train_sigmas(), c.out("train_sigmas"));
  report.compare("get_sigma", table.sigma(c.in("indices")), c.out("get_sigma"));
  std::optional<int64_t> tokens;
  if (c.config.value("use_flux_shift", false)) {
    tokens = c.config.at("n_tokens").get<int64_t>();
  }
  const auto schedule = df::hy_schedule(c.config.at("num_steps").get<int64_t>(), shift, tokens);
  report.compare("sigmas", schedule.sigmas, c.out("sigmas"));
  report.compare("timesteps", schedule.timesteps, c.out("timesteps"));
}

/// w2 tanh(w1 [x, t / 1000] + b1) for each pixel of x [B, F, C, H, W].
at::Tensor pixel_flow(const Case& c, const at::Tensor& x, double timestep) {
  const at::Tensor channels = x.movedim(2, -1);
  auto shape = channels.sizes().vec();
  shape.back() = 1;
  const at::Tensor input = at::cat({channels, at::full(shape, timestep / 1000)}, -1);
  const at::Tensor hidden = at::tanh(at::linear(input, c.param("w1"), c.param("b1")));
  return at::linear(hidden, c.param("w2")).movedim(-1, 2);
}

df::Solver case_solver(const std::string& name) {
  if (name == "flowmatch_euler" || name == "hy_euler") {
    return df::Solver::kEuler;
  }
  return name == "hy_cm" ? df::Solver::kRenoise : df::parse_solver(name);
}

void replay_trajectory(const Case& c, Report& report) {
  const int64_t steps = c.config.at("steps").get<int64_t>();
  const auto sampler = df::make_sampler(case_solver(c.config.at("sampler").get<std::string>()),
                                        steps, c.config.at("shift").get<double>());
  const at::Tensor sigmas = c.out("sigmas");  // some list the final 0
  report.compare("sigmas", at::tensor(sampler->sigmas(), at::kFloat).narrow(0, 0, sigmas.size(0)),
                 sigmas);
  report.compare("timesteps", at::tensor(sampler->timesteps(), at::kFloat), c.out("timesteps"));
  at::Tensor x = c.in("noise");
  auto compare_state = [&](int64_t k) {
    const std::string name = fmt::format("x/{:03}", k);
    if (c.has("out/" + name)) {
      report.compare(name, x, c.out(name));
    }
  };
  compare_state(0);
  for (int64_t k = 0; k < steps; ++k) {
    const std::string noise = fmt::format("step_noise/{:03}", k);
    const at::Tensor flow = pixel_flow(c, x, sampler->timesteps()[static_cast<size_t>(k)]);
    x = sampler->step(k, x, flow, c.has("in/" + noise) ? c.in(noise) : at::Tensor());
    compare_state(k + 1);
  }
}

struct Primitives {
  const Case& c;
  Report& report;
  at::Tensor a = c.in("a"), b = c.in("b"), g = c.in("c"), d = c.in("d"), mask = c.in("mask"),
             weight = c.in("weight"), sigma = c.in("sigma").flatten(1);

  void compare(const std::string& name, const at::Tensor& ours) {
    report.compare(name, ours, c.out(name));
  }

  void losses() {
    compare("add_flow_noise", df::add_noise(a, b, sigma));
    compare("flow_target", df::flow_target(a, b));
    compare("pred_x0", df::predict_x0(a, b, sigma));
    compare("fm_loss", df::squared_error(a, b));
    compare("fm_loss_mask", df::squared_error(a, b, mask));
    compare("fm_loss_w", df::squared_error(a, b, {}, weight));
    compare("fm_loss_w_mask", df::squared_error(a, b, mask, weight));
    compare("critic_loss", df::critic_loss(a, g, b));
    compare("critic_loss_w", df::critic_loss(a, g, b, {}, weight));
    compare("cd_loss", df::squared_error(a, b));
    compare("ode_loss", df::squared_error(a, b));
    compare("ode_loss_mask", df::squared_error(a, b, mask));
  }

  void guidance() {
    const auto scale = [&](const char* key) { return c.config.at(key).get<double>(); };
    for (const auto& name : c.under("out/cfg_")) {  // named by its scale
      compare("cfg_" + name, df::guide(a, b, scale("cfg")));
    }
    const at::Tensor now = c.in("t") / 1000, next = c.in("t_next") / 1000;
    compare("teacher_step", df::teacher_step(g, a, b, scale("teacher_cfg"), now, next));
    compare("teacher_step_s1", df::teacher_step(g, a, b, scale("teacher_cfg"), now, next));
  }

  /// Once from the x0 predictions themselves, once from flows that lead to them.
  void matching() {
    using df::Normalizer;
    const at::Tensor x = g + a;
    const at::Tensor fake_flow = (x - a) / df::per_frame(sigma, x),
                     real_flow = (x - b) / df::per_frame(sigma, x);
    for (const at::Tensor& difference :
         {a - b, df::score_difference(fake_flow, real_flow, sigma)}) {
      compare("kl_none", df::dmd_gradient(difference, b, g, Normalizer::kNone));
      compare("kl_per_sample", df::dmd_gradient(difference, b, g, Normalizer::kPerSample));
      compare("kl_global", df::dmd_gradient(difference, b, g, Normalizer::kGlobal));
    }
    compare("kl_global_zero", df::dmd_gradient(b - b, b, b, Normalizer::kGlobal));
    for (const bool masked : {false, true}) {
      const std::string suffix = masked ? "_mask" : "";
      const at::Tensor generated = g.clone().requires_grad_();
      const at::Tensor loss = df::dmd_loss(generated, d, masked ? mask : at::Tensor());
      loss.backward();
      compare("dmd_loss" + suffix, loss.detach());
      report.compare("grad/dmd_x" + suffix, generated.grad(), c.grad("dmd_x" + suffix));
    }
  }

  void masks() {
    const at::Tensor kept = df::last_frames(a.size(1), c.config.at("last_n_frames").get<int64_t>());
    compare("gmask", df::per_frame(kept.unsqueeze(0), a).expand(a.sizes()));
    const at::Tensor x = a.clone().requires_grad_();
    const at::Tensor masked = df::keep_gradient(x, kept);
    masked.backward(b);
    compare("masked", masked.detach());
    report.compare("grad/masked_x", x.grad(), c.grad("masked_x"));
  }

  void average() {
    train::EmaOptions options;
    options.decay = c.config.at("ema_decay").get<double>();
    const at::Tensor value = a.clone();
    train::Ema ema(options, {{"x", value}});
    ema.start_if_due(0);
    value.copy_(b);
    ema.update();
    compare("ema", ema.state().at("x"));
  }
};

void replay_primitives(const Case& c, Report& report) {
  Primitives primitives{c, report};
  primitives.losses();
  primitives.guidance();
  primitives.matching();
  primitives.masks();
  primitives.average();
}

const bool registered = register_kind("stages.sched.flowmatch.table", replay_flow_match_table) &&
                        register_kind("stages.sched.flowmatch.ops", replay_flow_match_ops) &&
                        register_kind("stages.sched.hy_discrete.table", replay_hy_table) &&
                        register_kind("stages.sampler.trajectory", replay_trajectory) &&
                        register_kind("stages.algo.primitives", replay_primitives);

}  // namespace
}  // namespace minwm::golden
