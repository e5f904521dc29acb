#pragma once
// A stage is a loss: models, a batch and an address of random draws in; named losses out.

#include <cstdint>
#include <map>
#include <memory>
#include <string>

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
  int64_t step = 0;
  int64_t micro_batch = 0;
};

struct LossOutput {
  at::Tensor loss;                       ///< scalar, mean over this micro-batch, in the graph
  std::map<std::string, double> values;  ///< more numbers for the log
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string name() const = 0;
  virtual LossOutput loss(const data::Batch& batch, const StepAddress& address) = 0;
};

}  // namespace minwm::stages
