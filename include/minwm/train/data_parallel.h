#pragma once
// All the training loop knows of ranks: whose samples a rank takes, how gradients become those of
// the global batch, and how decisions become common. Weights are replicated on every rank.
//
//   ranks.begin_step();
//   for each micro-batch: { if (last) ranks.reduce_in_backward(); (loss * share).backward(); }
//   ranks.finish_gradients();
//   at::Tensor everyone = ranks.exchange({loss, norm, stop});

#include <memory>
#include <vector>

#include <torch/torch.h>

#include "minwm/comm/mesh.h"
#include "minwm/train/optimizer.h"

namespace minwm::train {

class DataParallel {
 public:
  /// Gradients live in a few flat float32 buckets, the parameters that backward reaches first in
  /// the first; a parameter's grad() is a view into one.
  /// @throws Error if several ranks shall train on CUDA tensors: MPI moves CPU tensors only.
  DataParallel(const comm::Mesh& mesh, NamedParameters parameters);
  ~DataParallel();
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  int64_t data_rank() const;
  int64_t data_size() const;
  /// The rank that writes logs.
  bool is_first() const;
  comm::Communicator& world() const;
  /// Ranks with equal gradients that may share the optimizer's work; null if there is one.
  std::shared_ptr<comm::Communicator> helpers() const;

  /// Sets all gradients to zero.
  void begin_step();
  /// From here on a bucket is summed over the data ranks as soon as backward has filled it; buckets
  /// start in one fixed order on all ranks. Call before the backward of the step's last
  /// micro-batch.
  void reduce_in_backward();
  /// Starts what is left (collective), waits. A parameter that got no gradient in this step has
  /// none afterwards.
  void finish_gradients();

  /// Every rank's values, [ranks, values.size()] float64: what all ranks decide on is in it
  /// (collective).
  at::Tensor exchange(const std::vector<double>& values) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::train
