#pragma once
// One network in training: its gradients over the ranks, its optimizer, its average. A stage trains
// one or several.

#include <map>
#include <memory>
#include <string>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/stages/stage.h"
#include "minwm/train/checkpoint.h"
#include "minwm/train/ema.h"
#include "minwm/train/health.h"
#include "minwm/train/optimizer.h"
#include "minwm/train/trained_weights.h"

namespace minwm::train {

class Learner {
 public:
  Learner(const stages::Network& network, const OptimizerOptions& optimizer, const EmaOptions& ema,
          const HealthOptions& health, const comm::Mesh& mesh);

  const std::string& name() const { return name_; }
  TrainedWeights& weights() { return *weights_; }
  c10::Device device() const { return device_; }
  Health& health() { return health_; }

  /// Before the first iteration and after every one: the average starts once `completed` iterations
  /// reach its start.
  void start_average_if_due(int64_t completed);
  /// Puts the average into the weights and the weights aside; a second call puts them back.
  void swap_average();

  /// Clips the gradients (whose norm is `norm`), steps, averages. `measure`: also compares the
  /// weights before and after.
  /// @returns numbers for the log: update_ratio and unchanged if measured (see Health).
  std::map<std::string, double> apply(double lr, double norm, bool measure);

  /// Everything a run needs to continue: "<name>/param/…", "<name>/ema/…", moments, counters. The
  /// first network's moments and counters are under "optimizer/" and "counters/", as a single
  /// network's always were. What is in pieces goes into `parts`.
  void save(TensorMap& whole, PartMap& parts) const;
  /// Reads what this rank trains, whatever the ranks were when it was saved. @throws Error naming
  /// what is missing or mis-shaped.
  void load(const Checkpoint& checkpoint);

 private:
  std::string prefix(const std::string& kind) const;
  /// `values` of one parameter's shape or piece, by the parameter's place.
  void add(const std::string& dataset, size_t parameter, const at::Tensor& values, TensorMap& whole,
           PartMap& parts) const;
  at::Tensor read(const Checkpoint& checkpoint, const std::string& dataset, size_t parameter) const;
  std::vector<double> sum_over_pieces(const std::vector<double>& values) const;

  std::string name_;
  OptimizerOptions options_;
  comm::Mesh mesh_;
  std::shared_ptr<models::Backbone> module_, average_;
  c10::Device device_;
  std::unique_ptr<TrainedWeights> weights_;
  std::unique_ptr<Optimizer> optimizer_;
  Ema ema_;
  Health health_;
};

}  // namespace minwm::train
