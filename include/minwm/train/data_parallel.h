#pragma once
// Every rank has all weights; gradients are summed over the ranks while backward still runs.

#include <memory>
#include <vector>

#include "minwm/train/trained_weights.h"

namespace minwm::train {

class DataParallel : public TrainedWeights {
 public:
  /// Gradients live in a few flat float32 buckets, the parameters that backward reaches first in
  /// the first; a parameter's grad() is a view into one.
  DataParallel(const comm::Mesh& mesh, NamedParameters parameters);
  ~DataParallel() override;
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  const NamedParameters& parameters() const override;
  const std::vector<Place>& places() const override;
  bool sharded() const override { return false; }
  bool writes() const override { return true; }
  void begin_step() override;
  /// From here on a bucket is summed as soon as backward has filled it; buckets start in one fixed
  /// order on all ranks.
  void reduce_in_backward() override;
  void end_backward() override {}
  void finish_gradients() override;
  void changed() override {}
  std::shared_ptr<comm::Communicator> helpers() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Parameters with their names, in the module's order.
NamedParameters named_parameters(const torch::nn::Module& module);

}  // namespace minwm::train
