#pragma once
// A stage is a loss: models, a batch and an address of random draws in; named losses out.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/data/batch.h"
#include "minwm/models/backbone.h"

namespace minwm {
class Options;
}

namespace minwm::stages {

/// Where in the run a loss is computed: the address of its random draws.
struct StepAddress {
  uint64_t seed = 0;
  int64_t step = 0;  ///< iteration, 0-based
  int64_t micro_batch = 0;
};

struct LossOutput {
  at::Tensor loss;                           ///< scalar, mean over this micro-batch, in the graph
  std::map<std::string, at::Tensor> values;  ///< more scalars for the log, detached (averaged over
                                             ///< micro-batches and ranks; the same names on all)
};

/// A network that a stage trains. Each has an optimizer and gradients of its own.
struct Network {
  std::string name;  ///< "model" for the one that is the stage's result, e.g. "critic" for others
  std::shared_ptr<models::Backbone> module;
  /// A module of the same shape that holds the running average (it is the average, not a copy of
  /// it), for stages that evaluate it inside their loss; null if the average is only saved.
  std::shared_ptr<models::Backbone> average;
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string name() const = 0;
  /// What is trained; the first is the stage's result.
  virtual std::vector<Network> networks() const = 0;
  /// Indices into networks() that iteration `step` updates, in this order; each update has a batch
  /// and a loss of its own. The same on all ranks.
  virtual std::vector<size_t> updates(int64_t /*step*/) const { return {0}; }
  /// The loss of one micro-batch for the update of networks()[network]. Gradients may reach that
  /// network only.
  virtual LossOutput loss(size_t network, const data::Batch& batch, const StepAddress& address) = 0;
};

}  // namespace minwm::stages
