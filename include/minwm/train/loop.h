#pragma once
// The loop every stage shares: micro-batches → loss → backward → gradients of the global batch →
// clip → optimizer → EMA → a line of metrics, and now and then an evaluation and a checkpoint.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/core/error.h"
#include "minwm/data/latent_store.h"
#include "minwm/stages/stage.h"
#include "minwm/train/checkpoint.h"
#include "minwm/train/ema.h"
#include "minwm/train/health.h"
#include "minwm/train/optimizer.h"
#include "minwm/train/plan.h"
#include "minwm/train/signals.h"

namespace minwm::train {

struct CheckpointOptions {
  int64_t every = 500;             ///< steps; 0 = at the end only
  int64_t keep = 2;                ///< newest ones
  bool asynchronous = true;        ///< written from a copy while training goes on
  void declare(Options& options);  ///< section "checkpoint"
};

/// What clips tell the networks (stages/first_frame.h).
struct ConditionOptions {
  /// Probability that a clip gives its first latent, of models that read it through the conditions;
  /// 1 = image to video, 0 = text to video.
  double first_frame = 1;
  void declare(Options& options);  ///< section "condition"
};

struct RunOptions {
  TrainOptions train;
  ConditionOptions condition;
  OptimizerOptions optimizer;
  double critic_lr = 0;  ///< learning rate of a stage's second network; 0 = optimizer.lr
  EmaOptions ema;        ///< of the stage's result, its first network
  HealthOptions health;
  CheckpointOptions checkpoint;
  int64_t eval_every = 0;        ///< steps between evaluations, and one at the end; 0 = none
  int64_t probe_every = 0;       ///< steps between probes; 0 = none
  std::filesystem::path output;  ///< gets metrics.jsonl, a TensorBoard file and checkpoints/
  int64_t tokens_per_clip = 0;   ///< for tokens_per_second
};

/// What is trained, on what.
struct RunParts {
  std::shared_ptr<stages::Stage> stage;  ///< its networks are float32, on their device
  std::vector<std::shared_ptr<const data::LatentStore>> stores;
  /// Numbers for the log, computed with the averaged weights in the model (collective); may be
  /// empty.
  std::function<std::map<std::string, double>()> evaluate;
  /// Shows what the averaged weights generate after a step; may be empty. Called on every rank,
  /// because generating with sharded weights takes all of them.
  std::function<void(int64_t step)> probe;
  CheckpointInfo info;  ///< recorded in checkpoints, with the step filled in
  std::vector<std::filesystem::path> attached;  ///< files copied into every checkpoint
};

/// An error that every rank found at the same point: one of them may speak for all.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// @throws Error unless the checkpoint is of the model, stage and seed of `wanted`.
void require_same_run(const Checkpoint& checkpoint, const CheckpointInfo& wanted);

class TrainingRun {
 public:
  /// Collective over the mesh. @throws Error if the batch does not fit the ranks.
  TrainingRun(RunOptions options, RunParts parts, const comm::Mesh& mesh);
  ~TrainingRun();

  /// Continues where a checkpoint of such a run was saved; on the same ranks the outcome is bit for
  /// bit that of the run that was never interrupted. @throws Error if it is of another model,
  /// stage, seed or optimizer.
  void resume(const Checkpoint& checkpoint);
  int64_t step() const;  ///< steps completed
  const BatchPlan& plan() const;

  /// Trains to the end (true), or until a signal to any rank (false); either way a checkpoint of
  /// the last step exists.
  /// A step whose loss or gradients are not finite, or whose gradient norm is a spike, is not
  /// applied. @throws AgreedError (exit code 70) naming the step after health.max_bad_steps of them
  /// in a row.
  bool run(const StopSignals& signals);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::train
