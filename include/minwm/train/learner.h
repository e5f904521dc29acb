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
#include "minwm/train/data_parallel.h"
#include "minwm/train/ema.h"
#include "minwm/train/health.h"
#include "minwm/train/optimizer.h"

namespace minwm::train {

class Learner {
 public:
  Learner(const stages::Network& network, const OptimizerOptions& optimizer, const EmaOptions& ema,
          const HealthOptions& health, const comm::Mesh& mesh);

  const std::string& name() const { return name_; }
  const NamedParameters& parameters() const { return parameters_; }
  DataParallel& ranks() { return ranks_; }
  Ema& ema() { return ema_; }
  Health& health() { return health_; }

  /// Clips the gradients (whose norm is `norm`), steps, averages. `measure`: also compares the
  /// weights before and after.
  /// @returns numbers for the log: update_ratio and unchanged if measured (see Health).
  std::map<std::string, double> apply(double lr, double norm, bool measure);

  /// Everything a run needs to continue: "<name>/param/…", "<name>/ema/…", moments, counters. The
  /// first network's moments and counters are under "optimizer/" and "counters/", as a single
  /// network's always were.
  void save(TensorMap& tensors) const;
  /// @throws Error naming what is missing or mis-shaped.
  void load(const Checkpoint& checkpoint);

 private:
  std::string prefix(const std::string& kind) const;

  std::string name_;
  OptimizerOptions options_;
  std::shared_ptr<models::Backbone> module_;
  NamedParameters parameters_;
  DataParallel ranks_;
  std::unique_ptr<Optimizer> optimizer_;
  Ema ema_;
  Health health_;
};

/// Parameters with their names, in the module's order.
NamedParameters named_parameters(const torch::nn::Module& module);

}  // namespace minwm::train
