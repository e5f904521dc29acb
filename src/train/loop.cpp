#include "minwm/train/loop.h"

#include <chrono>
#include <cmath>

#include <spdlog/spdlog.h>

#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/data/loader.h"
#include "minwm/train/data_parallel.h"
#include "minwm/train/metrics.h"

namespace minwm::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

NamedParameters named_parameters(const torch::nn::Module& model) {
  NamedParameters parameters;
  for (const auto& item : model.named_parameters()) {
    parameters.emplace_back(item.key(), item.value());
  }
  return parameters;
}

void move_to(data::Batch& batch, const c10::Device& device) {
  batch.latents = batch.latents.to(device);
  batch.conditions = batch.conditions.to(device);
  if (batch.ode_states.defined()) {
    batch.ode_states = batch.ode_states.to(device);
    batch.given = batch.given.to(device);
  }
}

}  // namespace

void CheckpointOptions::declare(Options& options) {
  options.add("checkpoint.every", &every, "steps between checkpoints; 0 = at the end only");
  options.add("checkpoint.keep", &keep, "newest checkpoints that are kept");
}

void require_same_run(const Checkpoint& checkpoint, const CheckpointInfo& wanted) {
  const auto& stored = checkpoint.info();
  const std::string where = checkpoint.path().string();
  require(stored.model == wanted.model, "{}: holds model '{}', this run trains '{}'", where,
          stored.model, wanted.model);
  require(stored.stage == wanted.stage,
          "{}: was saved by stage '{}', this run is '{}': start from its weights with --init",
          where, stored.stage, wanted.stage);
  require(stored.seed == wanted.seed, "{}: was trained with seed {}, this run has seed {}", where,
          stored.seed, wanted.seed);
}

struct TrainingRun::Impl {
  Impl(RunOptions run_options, RunParts run_parts, const comm::Mesh& mesh)
      : options(std::move(run_options)),
        parts(std::move(run_parts)),
        parameters(named_parameters(*parts.model)),
        ranks(mesh, parameters),
        plan(plan_batch(options.train, ranks.data_size())),
        optimizer(make_optimizer(options.optimizer, parameters, ranks.helpers())),
        ema(options.ema, parameters) {}

  /// What this rank's share of a step came to, and what it cost.
  struct Local {
    double loss = 0, norm = 0, data_wait = 0;
  };
  /// The same of all ranks.
  struct Common {
    double loss = 0, norm = 0, data_wait = 0;
    bool stop = false;
  };

  Local gradients(data::Loader& loader);
  Common agree(const Local& local, bool stop) const;
  StepMetrics update(const Common& common);
  void evaluate(StepMetrics& metrics);
  void save();
  TensorMap state() const;

  RunOptions options;
  RunParts parts;
  NamedParameters parameters;
  DataParallel ranks;
  BatchPlan plan;
  std::unique_ptr<Optimizer> optimizer;
  Ema ema;
  int64_t completed = 0;
  int64_t saved = -1;  // the step of the newest checkpoint
};

/// Gradients of the global batch's mean loss, in every rank's parameters.
TrainingRun::Impl::Local TrainingRun::Impl::gradients(data::Loader& loader) {
  Local local;
  ranks.begin_step();
  at::Tensor loss;
  for (int64_t m = 0; m < plan.accumulation; ++m) {
    data::Batch batch = loader.next();
    local.data_wait += loader.last_wait();
    move_to(batch, parameters.front().second.device());
    const auto output = parts.stage->loss(0, batch, {parts.info.seed, completed, m});
    if (m + 1 == plan.accumulation) {
      ranks.reduce_in_backward();
    }
    // Every micro-batch is an equal part of the global batch, and reducing sums.
    (output.loss / static_cast<double>(plan.accumulation * plan.data_ranks)).backward();
    const at::Tensor share =
        output.loss.detach().to(at::kDouble) / static_cast<double>(plan.accumulation);
    loss = loss.defined() ? loss + share : share;
  }
  ranks.finish_gradients();
  const at::Tensor norm = gradient_norm(parameters).to(loss.device());
  const at::Tensor both = at::stack({loss, norm}).cpu();  // the step's one wait for the device
  local.loss = both[0].item<double>();
  local.norm = both[1].item<double>();
  return local;
}

TrainingRun::Impl::Common TrainingRun::Impl::agree(const Local& local, bool stop) const {
  const at::Tensor everyone =
      ranks.exchange({local.loss, local.norm, local.data_wait, stop ? 1.0 : 0.0});
  Common common;
  common.loss = everyone.select(1, 0).mean().item<double>();
  common.norm = everyone.select(1, 1).max().item<double>();  // equal, but for a broken rank
  common.data_wait = everyone.select(1, 2).max().item<double>();
  common.stop = everyone.select(1, 3).max().item<double>() > 0;
  if (!std::isfinite(common.loss) || !std::isfinite(common.norm)) {
    throw AgreedError(
        fmt::format(
            "step {}: loss {}, gradient norm {}: training diverged (a lower optimizer.lr, or a "
            "smaller optimizer.clip?); the weights of step {} are in {}",
            completed + 1, common.loss, common.norm, std::max<int64_t>(saved, 0),
            saved < 0 ? "no checkpoint" : (options.output / "checkpoints").string()),
        kExitFailure);
  }
  return common;
}

StepMetrics TrainingRun::Impl::update(const Common& common) {
  const auto& o = options.optimizer;
  StepMetrics metrics;
  metrics.loss = common.loss;
  metrics.grad_norm = common.norm;
  metrics.data_wait = common.data_wait;
  metrics.lr = learning_rate(o, completed, options.train.steps);
  metrics.skipped = o.skip_norm > 0 && common.norm >= o.skip_norm;
  if (!metrics.skipped) {
    scale_gradients(parameters, common.norm, o.clip);
    optimizer->step(metrics.lr);
    ema.update(completed);
  }
  metrics.step = ++completed;
  return metrics;
}

void TrainingRun::Impl::evaluate(StepMetrics& metrics) {
  const bool due = options.eval_every > 0 &&
                   (completed % options.eval_every == 0 || completed == options.train.steps);
  if (due && parts.evaluate) {
    ema.swap();
    metrics.more = parts.evaluate();
    ema.swap();
  }
}

TensorMap TrainingRun::Impl::state() const {
  TensorMap tensors;
  for (const auto& [name, p] : parameters) {
    tensors["model/param/" + name] = p.detach();
  }
  for (const auto& [name, tensor] : ema.state()) {
    tensors[name == "updates" ? "counters/ema_updates" : "model/ema/" + name] = tensor;
  }
  for (const auto& [name, tensor] : optimizer->state()) {
    tensors[name == "step" ? "counters/optimizer_step" : "optimizer/" + name] = tensor;
  }
  return tensors;
}

void TrainingRun::Impl::save() {
  if (saved == completed) {
    return;
  }
  CheckpointInfo info = parts.info;
  info.step = completed;
  save_checkpoint(options.output / "checkpoints", info, state(), parts.attached,
                  options.checkpoint.keep, ranks.world());
  saved = completed;
}

TrainingRun::TrainingRun(RunOptions options, RunParts parts, const comm::Mesh& mesh)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(parts), mesh)) {}
TrainingRun::~TrainingRun() = default;

int64_t TrainingRun::step() const {
  return impl_->completed;
}
const BatchPlan& TrainingRun::plan() const {
  return impl_->plan;
}

void TrainingRun::resume(const Checkpoint& checkpoint) {
  auto& run = *impl_;
  require_same_run(checkpoint, run.parts.info);
  checkpoint.load_model(*run.parts.model, false);
  TensorMap moments = checkpoint.read_group("optimizer/");
  moments["step"] = checkpoint.read("counters/optimizer_step");
  run.optimizer->load_state(moments);
  TensorMap average = checkpoint.read_group("model/ema/");
  if (!average.empty()) {
    average["updates"] = checkpoint.read("counters/ema_updates");
  }
  run.ema.load_state(average);
  run.completed = run.saved = checkpoint.info().step;
}

bool TrainingRun::run(const StopSignals& signals) {
  auto& run = *impl_;
  const int64_t steps = run.options.train.steps;
  const bool first = run.ranks.is_first();
  std::unique_ptr<MetricsLog> log;
  if (first) {
    log = std::make_unique<MetricsLog>(run.options.output, run.completed);
  }
  data::Loader loader(run.parts.stores, run.parts.info.seed, run.options.train.global_batch,
                      run.plan.micro_batch, run.ranks.data_rank(), run.ranks.data_size(),
                      run.completed);
  Progress progress("train " + run.parts.stage->name(), steps, "steps", first);
  progress.update(run.completed);
  bool stop = false;
  while (run.completed < steps && !stop) {
    const auto started = Clock::now();
    const auto common = run.agree(run.gradients(loader), signals.requested());
    stop = common.stop;
    StepMetrics metrics = run.update(common);
    metrics.seconds = seconds_since(started);
    metrics.tokens_per_second =
        static_cast<double>(run.options.train.global_batch * run.options.tokens_per_clip) /
        metrics.seconds;
    run.evaluate(metrics);
    if (log) {
      log->write(metrics);
      progress.update(run.completed, fmt::format("loss {:.4f}", metrics.loss));
    }
    const int64_t every = run.options.checkpoint.every;
    if (stop || run.completed == steps || (every > 0 && run.completed % every == 0)) {
      run.save();
    }
  }
  return run.completed >= steps;
}

}  // namespace minwm::train
