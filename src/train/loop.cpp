#include "minwm/train/loop.h"

#include <chrono>
#include <cmath>

#include <spdlog/spdlog.h>

#include "call_order.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/data/loader.h"
#include "minwm/stages/first_frame.h"
#include "minwm/train/learner.h"
#include "minwm/train/metrics.h"

namespace minwm::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
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
  options.add("checkpoint.asynchronous", &asynchronous,
              "write checkpoints while training goes on, from a copy in host memory");
}

void ConditionOptions::declare(Options& options) {
  options.add("condition.first_frame", &first_frame,
              "probability that a clip's first latent is given through the conditions (hy models): "
              "1 = image to video, 0 = text to video");
}

void require_same_run(const Checkpoint& checkpoint, const CheckpointInfo& wanted) {
  const auto& stored = checkpoint.info();
  const std::string where = checkpoint.path().string();
  require(stored.model == wanted.model, "{}: holds model '{}', this run trains '{}'", where,
          stored.model, wanted.model);
  require(stored.stage == wanted.stage,
          "{}: was saved by stage '{}', this run is '{}': start from its weights with --init",
          where, stored.stage, wanted.stage);
  const auto switches = [](const CheckpointInfo& info) {
    return fmt::format(
        "model.camera_cache = {}, model.context_action = {}, condition.first_frame = {}",
        info.camera_cache, info.context_action, info.first_frame);
  };
  require(switches(stored) == switches(wanted), "{}: was trained with {}, this run has {}", where,
          switches(stored), switches(wanted));
  require(stored.seed == wanted.seed, "{}: was trained with seed {}, this run has seed {}", where,
          stored.seed, wanted.seed);
}

struct TrainingRun::Impl {
  Impl(RunOptions run_options, RunParts run_parts, const comm::Mesh& run_mesh)
      : options(std::move(run_options)),
        parts(std::move(run_parts)),
        mesh(run_mesh),
        writer(options.output / "checkpoints", options.checkpoint.keep, mesh.world,
               options.checkpoint.asynchronous) {
    networks = parts.stage->networks();
    for (size_t i = 0; i < networks.size(); ++i) {
      OptimizerOptions optimizer = options.optimizer;
      if (i > 0 && options.critic_lr > 0) {
        optimizer.lr = options.critic_lr;
      }
      rates.push_back(optimizer);
      learners.push_back(std::make_unique<Learner>(
          networks[i], optimizer, i == 0 ? options.ema : EmaOptions{}, options.health, mesh));
    }
    plan = plan_batch(options.train, mesh.data_size());
  }

  /// What a network's update came to: on this rank, then of all.
  struct Outcome {
    double loss = 0;
    double norm = 0;  // on one rank: of the gradients it holds
    double data_wait = 0;
    std::map<std::string, double> values;  // the stage's numbers
    bool stop = false;
  };

  bool is_first() const { return mesh.world->rank() == 0; }
  Outcome gradients(size_t network, data::Loader& loader);
  Outcome agree(const Outcome& local, bool stop) const;
  void update(size_t network, const Outcome& common, StepMetrics& metrics);
  void refuse(const std::string& network, const std::string& why, int64_t in_a_row);
  void finish_step();
  void show(StepMetrics& metrics);
  void save();
  int64_t batches_before(int64_t step) const;

  RunOptions options;
  RunParts parts;
  comm::Mesh mesh;
  CheckpointWriter writer;
  std::vector<stages::Network> networks;  // all of one family: they are told the same
  std::vector<OptimizerOptions> rates;    // per learner
  std::vector<std::unique_ptr<Learner>> learners;
  BatchPlan plan;
  int64_t completed = 0;
  int64_t drawn = 0;   // global batches
  int64_t saved = -1;  // the step of the newest checkpoint
};

/// Gradients of the global batch's mean loss, in every rank's parameters.
TrainingRun::Impl::Outcome TrainingRun::Impl::gradients(size_t network, data::Loader& loader) {
  auto& learner = *learners[network];
  auto& weights = learner.weights();
  Outcome local;
  weights.begin_step();
  std::vector<at::Tensor> numbers;  // loss, then the stage's values, by name
  std::vector<std::string> names;
  const double share = 1.0 / static_cast<double>(plan.accumulation);
  for (int64_t m = 0; m < plan.accumulation; ++m) {
    data::Batch batch = loader.next();
    local.data_wait += loader.last_wait();
    move_to(batch, learner.device());
    const stages::StepAddress address{parts.info.seed, completed, m};
    batch.conditions =
        stages::told_conditions(*networks.front().module, batch, address,
                                "first_frame." + learner.name(), options.condition.first_frame);
    const auto output = parts.stage->loss(network, batch, address);
    if (m + 1 == plan.accumulation) {
      weights.reduce_in_backward();
    }
    // Every micro-batch is an equal part of the global batch, and reducing sums.
    (output.loss * (share / static_cast<double>(plan.data_ranks))).backward();
    weights.end_backward();
    std::vector<at::Tensor> parts_of = {output.loss.detach()};
    names.clear();
    for (const auto& [name, value] : output.values) {
      names.push_back(name);
      parts_of.push_back(value.detach());
    }
    for (size_t i = 0; i < parts_of.size(); ++i) {
      const at::Tensor part = parts_of[i].to(at::kDouble) * share;
      m == 0 ? numbers.push_back(part) : void(numbers[i] += part);
    }
  }
  ++drawn;
  weights.finish_gradients();
  numbers.push_back(gradient_norm(weights.parameters()).to(numbers.front().device()));
  const at::Tensor all = at::stack(numbers).cpu();  // the update's one wait for the device
  const auto read = all.accessor<double, 1>();
  local.loss = read[0];
  local.norm = read[all.size(0) - 1];
  for (size_t i = 0; i < names.size(); ++i) {
    local.values[names[i]] = read[static_cast<int64_t>(i) + 1];
  }
  return local;
}

TrainingRun::Impl::Outcome TrainingRun::Impl::agree(const Outcome& local, bool stop) const {
  std::vector<double> mine = {local.loss, local.norm, local.data_wait, stop ? 1.0 : 0.0};
  const auto order = order_of_calls(mesh);
  mine.insert(mine.end(), order.begin(), order.end());
  for (const auto& [name, value] : local.values) {
    mine.push_back(value);
  }
  const auto count = static_cast<int64_t>(mine.size());
  at::Tensor everyone = at::empty({mesh.world->size(), count}, at::kDouble);
  mesh.world->all_gather(at::tensor(mine, at::kDouble), everyone.view(-1), "step decisions");
  const auto orders = static_cast<int64_t>(order.size());
  require_same_order(mesh, everyone.narrow(1, 4, orders), completed + 1);
  Outcome common;
  common.loss = everyone.select(1, 0).mean().item<double>();
  // The ranks of a copy hold different gradients (or, unsharded, all the same ones).
  const double copies = static_cast<double>(mesh.world->size() / mesh.copy_size());
  common.norm = std::sqrt(everyone.select(1, 1).square().sum().item<double>() / copies);
  common.data_wait = everyone.select(1, 2).max().item<double>();
  common.stop = everyone.select(1, 3).max().item<double>() > 0;
  int64_t column = 4 + orders;
  for (const auto& [name, value] : local.values) {
    common.values[name] = everyone.select(1, column++).mean().item<double>();
  }
  return common;
}

void TrainingRun::Impl::refuse(const std::string& network, const std::string& why,
                               int64_t in_a_row) {
  const std::string what = fmt::format("step {}: {}: {}", completed + 1, network, why);
  if (in_a_row < options.health.max_bad_steps) {
    if (is_first()) {
      spdlog::warn("{}: this update is not applied ({} in a row)", what, in_a_row);
    }
    return;
  }
  writer.wait();  // the message names the newest checkpoint: let it be there
  throw AgreedError(
      fmt::format("{}: training diverged, {} updates in a row were not applied (a lower "
                  "optimizer.lr, or a smaller optimizer.clip?); the weights of step {} are in {}",
                  what, in_a_row, std::max<int64_t>(saved, 0),
                  saved < 0 ? "no checkpoint" : (options.output / "checkpoints").string()),
      kExitFailure);
}

void TrainingRun::Impl::update(size_t network, const Outcome& common, StepMetrics& metrics) {
  auto& learner = *learners[network];
  const auto& o = rates[network];
  metrics.loss = common.loss;
  metrics.grad_norm = common.norm;
  metrics.data_wait += common.data_wait;
  metrics.lr = learning_rate(o, completed, options.train.steps);
  const bool several = learners.size() > 1;
  auto record = [&](const std::string& name, double value) {
    metrics.more[several ? learner.name() + "_" + name : name] = value;
  };
  metrics.more.insert(common.values.begin(), common.values.end());
  if (several) {
    record("loss", common.loss);
    record("grad_norm", common.norm);
  }
  const std::string why = learner.health().refuse(common.loss, common.norm);
  if (!why.empty()) {
    metrics.skipped = true;
    refuse(learner.name(), why, learner.health().bad_steps());
    return;
  }
  if (o.skip_norm > 0 && common.norm >= o.skip_norm) {
    metrics.skipped = true;
    return;
  }
  const int64_t every = options.health.measure_every;
  const auto measured =
      learner.apply(metrics.lr, common.norm, every > 0 && (completed + 1) % every == 0);
  for (const auto& [name, value] : measured) {
    record(name, value);
  }
  for (const auto& alarm :
       learner.health().alarms(completed + 1, common.loss, common.norm, measured)) {
    if (is_first()) {
      spdlog::warn("step {}: {}", completed + 1, alarm);
    }
  }
}

void TrainingRun::Impl::finish_step() {
  ++completed;
  for (auto& learner : learners) {
    learner->start_average_if_due(completed);
  }
}

/// Evaluation and probe, with the averaged weights in the model.
void TrainingRun::Impl::show(StepMetrics& metrics) {
  auto due = [&](int64_t every) {
    return every > 0 && (completed % every == 0 || completed == options.train.steps);
  };
  const bool evaluate = parts.evaluate && due(options.eval_every);
  const bool probe = parts.probe && due(options.probe_every);
  if (!evaluate && !probe) {
    return;
  }
  auto& learner = *learners.front();
  learner.swap_average();
  if (evaluate) {
    metrics.more.merge(parts.evaluate());
  }
  if (probe) {
    parts.probe(completed);
  }
  learner.swap_average();
}

void TrainingRun::Impl::save() {
  if (saved == completed) {
    return;
  }
  CheckpointInfo info = parts.info;
  info.step = completed;
  info.data_position = drawn;
  TensorMap whole;
  PartMap pieces;
  for (const auto& learner : learners) {
    learner->save(whole, pieces);
  }
  writer.save(info, whole, pieces, parts.attached);
  saved = completed;
}

/// Batches that the updates of the first `step` iterations take.
int64_t TrainingRun::Impl::batches_before(int64_t step) const {
  int64_t count = 0;
  for (int64_t s = 0; s < step; ++s) {
    count += static_cast<int64_t>(parts.stage->updates(s).size());
  }
  return count;
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
  for (auto& learner : run.learners) {
    learner->load(checkpoint);
  }
  run.completed = run.saved = checkpoint.info().step;
  // Checkpoints of before it was recorded: what these options would have drawn.
  const int64_t recorded = checkpoint.info().data_position;
  run.drawn = recorded > 0 ? recorded : run.batches_before(run.completed);
}

bool TrainingRun::run(const StopSignals& signals) {
  auto& run = *impl_;
  const int64_t steps = run.options.train.steps;
  const bool first = run.is_first();
  std::unique_ptr<MetricsLog> log;
  if (first) {
    log = std::make_unique<MetricsLog>(run.options.output, run.completed);
  }
  data::Loader loader(run.parts.stores, run.parts.info.seed, run.options.train.global_batch,
                      run.plan.micro_batch, run.mesh.data_rank(), run.mesh.data_size(), run.drawn);
  Progress progress("train " + run.parts.stage->name(), steps, "steps", first);
  progress.update(run.completed);
  for (auto& learner : run.learners) {
    learner->start_average_if_due(run.completed);
  }
  bool stop = false;
  while (run.completed < steps && !stop) {
    const auto started = Clock::now();
    StepMetrics metrics;
    const auto updates = run.parts.stage->updates(run.completed);
    for (const size_t network : updates) {
      const auto common = run.agree(run.gradients(network, loader), signals.requested());
      stop = stop || common.stop;
      run.update(network, common, metrics);
    }
    run.finish_step();
    metrics.step = run.completed;
    metrics.seconds = seconds_since(started);
    metrics.tokens_per_second =
        static_cast<double>(static_cast<int64_t>(updates.size()) * run.options.train.global_batch *
                            run.options.tokens_per_clip) /
        metrics.seconds;
    run.show(metrics);
    if (log) {
      log->write(metrics);
      progress.update(run.completed, fmt::format("loss {:.4f}", metrics.loss));
    }
    const int64_t every = run.options.checkpoint.every;
    if (stop || run.completed == steps || (every > 0 && run.completed % every == 0)) {
      run.save();
    }
    run.writer.check();
  }
  run.writer.wait();
  return run.completed >= steps;
}

}  // namespace minwm::train
