// Consistency distillation steps: loss, gradients, the optimizer's step and the running average.

#include "minwm/stages/consistency.h"
#include "minwm/train/ema.h"
#include "standin.h"

namespace minwm::golden {
namespace {

using stages::ConsistencyDraws;
using stages::ConsistencyOptions;
using stages::ConsistencyTerms;

train::NamedParameters parameters_of(const torch::nn::Module& module) {
  train::NamedParameters out;
  for (const auto& item : module.named_parameters()) {
    out.emplace_back(item.key(), item.value());
  }
  return out;
}

/// A student with its optimizer and average, trained step after step as the training loop does.
class Training {
 public:
  explicit Training(const Case& c)
      : case_(c),
        student(standin(c, "student/")),
        teacher(standin(c, "teacher/")),
        average(standin(c, "ema/")),
        parameters_(parameters_of(*student)),
        ema_(ema_options(c), parameters_, parameters_of(*average)) {
    const auto& o = c.config.at("optimizer");
    options_.name = o.at("type").get<std::string>();
    options_.lr = o.at("lr").get<double>();
    const auto& betas = o.at(options_.name == "muon" ? "adamw_betas" : "betas");
    options_.beta1 = betas.at(0).get<double>();
    options_.beta2 = betas.at(1).get<double>();
    options_.eps = o.at(options_.name == "muon" ? "adamw_eps" : "eps").get<double>();
    options_.weight_decay = o.at("weight_decay").get<double>();
    options_.clip = o.at("max_grad_norm").get<double>();
    options_.muon_momentum = o.value("momentum", options_.muon_momentum);
    optimizer_ = train::make_optimizer(options_, parameters_);
    // The case's own average, which the copy of the student at the start would overwrite.
    std::map<std::string, at::Tensor> state{{"updates", at::tensor(int64_t{0}, at::kLong)}};
    for (const auto& [name, value] : named_tensors(*average)) {
      state[name] = value.clone();
    }
    ema_.load_state(state);
    teacher->record = true;
  }

  /// Step `index` from the terms of its loss; its results are called out/<prefix>….
  void step(const ConsistencyTerms& terms, const std::string& prefix, int64_t index,
            Report& report) {
    student->zero_grad();
    terms.loss.backward();
    report.compare(prefix + "loss", terms.loss, case_.out(prefix + "loss"));
    compare_stage_gradients(case_, report, *student, prefix);
    if (options_.name == "muon") {
      remove_summation_noise(prefix);
    }
    const double norm = train::gradient_norm(parameters_).item<double>();
    report.compare(prefix + "grad_norm", at::scalar_tensor(norm, at::kFloat),
                   case_.out(prefix + "grad_norm"));
    train::scale_gradients(parameters_, norm, options_.clip);
    optimizer_->step(options_.lr);
    ema_.update();
    const double atol = case_.config.value("param_after_atol", case_.atol);
    places_.push_back(prefix);
    compare_updated(case_, report, prefix + "param_after/", named_tensors(*student), places_,
                    options_.lr, index + 1, atol);
    compare_updated(case_, report, prefix + "ema_after/", named_tensors(*average), places_,
                    options_.lr, index + 1, atol);
  }

  /// The teacher's flows of a step, [conditional, unconditional], before any cast. Guidance 1 needs
  /// no unconditional one: it is asked for here.
  std::vector<at::Tensor> teacher_flows(const ConsistencyTerms& terms, const data::Batch& batch,
                                        const ConsistencyOptions& options) const {
    const at::Tensor flow = teacher->forwards.back().flow;
    if (options.guidance != 1) {
      return flow.chunk(2);
    }
    models::ForwardInput input;
    input.latents = terms.noisy;
    input.timestep = terms.from.timestep;
    input.conditions = batch.conditions.with_text_of(options.negative);
    input.clean_latents = batch.latents;
    input.chunk_frames = options.chunk_frames;
    at::NoGradGuard constant;
    return {flow, teacher->forward(input).to(at::kFloat)};
  }

 private:
  /// Muon rounds gradients to bfloat16 and then amplifies small singular values: the last bit of a
  /// float32 sum can move a weight by more than param_after_atol. Gradients that differ by no more
  /// than that become the reference's; larger differences stay, and show.
  void remove_summation_noise(const std::string& prefix) {
    constexpr double kNoise = 1e-6;
    for (auto& [name, p] : parameters_) {
      const at::Tensor reference = case_.grad(prefix + name), ours = p.grad();
      const at::Tensor near = (ours - reference).abs() <= kNoise * reference.abs().max();
      p.mutable_grad() = at::where(near, reference, ours);
    }
  }

  static train::EmaOptions ema_options(const Case& c) {
    train::EmaOptions options;
    options.decay = c.config.at("ema_decay").get<double>();
    return options;
  }

  const Case& case_;
  train::OptimizerOptions options_;

 public:
  std::shared_ptr<StandIn> student, teacher, average;

 private:
  train::NamedParameters parameters_;
  train::Ema ema_;
  std::unique_ptr<train::Optimizer> optimizer_;
  std::vector<std::string> places_;  // of the gradients so far
};

at::Tensor interval_of(const at::Tensor& index, const at::Tensor& latents) {
  return index.expand({latents.size(0), latents.size(1)});
}

void replay_wan(const Case& c, Report& report) {
  const bool bfloat16 = c.config.at("compute_dtype").get<std::string>() == "bfloat16";
  ConsistencyOptions options;
  options.intervals = integer(c, "discrete_cd_N");
  options.terminal = false;
  options.shift = c.config.at("cd_shift").get<double>();
  options.guidance = c.config.at("guidance_scale").get<double>();
  options.negative = standin_negative(c);
  options.chunk_frames = integer(c, "num_frame_per_block");
  options.level.shift = c.config.at("wrapper_shift").get<double>();
  options.level.table_sigma = true;
  options.level.bfloat16_timestep = bfloat16;
  options.check();
  data::Batch batch;
  batch.latents = c.in("clean_latent").to(bfloat16 ? at::kBFloat16 : at::kFloat);
  batch.conditions = standin_conditions(c);
  Training training(c);
  const int64_t steps = c.config.value("steps", int64_t{1});
  for (int64_t k = 0; k < steps; ++k) {
    const std::string prefix = steps > 1 ? std::to_string(k) + "/" : "";
    ConsistencyDraws draws;
    draws.noise = c.in(prefix + "noise");
    draws.interval = interval_of(c.in(prefix + "timestep_index"), batch.latents);
    const auto terms = stages::consistency_loss(
        {*training.student, *training.teacher, *training.average}, batch, draws, options);
    report.compare(prefix + "timestep", terms.from.timestep, c.out(prefix + "timestep"));
    report.compare(prefix + "timestep_next", terms.to.timestep, c.out(prefix + "timestep_next"));
    report.compare(prefix + "latent_t", terms.noisy, c.out(prefix + "latent_t"));
    report.compare(prefix + "latent_t_next", terms.stepped, c.out(prefix + "latent_t_next"));
    const auto flows = training.teacher_flows(terms, batch, options);
    report.compare(prefix + "teacher_v_cond", flows[0], c.out(prefix + "teacher_v_cond"));
    report.compare(prefix + "teacher_v_uncond", flows[1], c.out(prefix + "teacher_v_uncond"));
    training.step(terms, prefix, k, report);
  }
}

void replay_hy(const Case& c, Report& report) {
  const bool bfloat16 = c.config.at("dtype").get<std::string>() == "bfloat16";
  ConsistencyOptions options;
  options.intervals = integer(c, "cd_num_steps");
  options.shift = c.config.at("shift").get<double>();
  options.guidance = c.config.at("cfg_scale").get<double>();
  options.negative = hy_negative(c);
  options.chunk_frames = integer(c, "chunk");
  options.level.bfloat16_timestep = options.level.bfloat16_sigma = bfloat16;
  options.check();
  data::Batch batch;
  batch.latents = swap_layout(c.in("latents"));
  batch.conditions = hy_conditions(c, batch.latents.size(1));
  Training training(c);
  ConsistencyDraws draws;
  draws.noise = swap_layout(c.in("noise"));
  draws.interval = interval_of(c.in("timestep_index"), batch.latents);
  const auto terms = stages::consistency_loss(
      {*training.student, *training.teacher, *training.average}, batch, draws, options);
  report.compare("model_timestep", terms.from.timestep, c.out("model_timestep"));
  report.compare("model_timestep_next", terms.to.timestep, c.out("model_timestep_next"));
  report.compare("sigma", terms.from.sigma.select(1, 0), c.out("sigma"));
  report.compare("sigma_next", terms.to.sigma.select(1, 0), c.out("sigma_next"));
  report.compare("latent_t", swap_layout(terms.noisy), c.out("latent_t"));
  report.compare("latent_t_next", swap_layout(terms.stepped), c.out("latent_t_next"));
  const auto flows = training.teacher_flows(terms, batch, options);
  report.compare("teacher_v_cond", swap_layout(flows[0]), c.out("teacher_v_cond"));
  report.compare("teacher_v_uncond", swap_layout(flows[1]), c.out("teacher_v_uncond"));
  training.step(terms, "", 0, report);
}

const bool registered[] = {register_kind("stages.wan.cd.step", replay_wan),
                           register_kind("stages.hy.cd.step", replay_hy)};

}  // namespace
}  // namespace minwm::golden
