#pragma once
// Feeds the training loop: which clips a data-parallel rank sees at a step is a function of (seed,
// step, rank).

#include <memory>
#include <string>
#include <vector>

#include "minwm/data/batch.h"
#include "minwm/data/latent_store.h"

namespace minwm::data {

struct LoaderOptions {
  std::vector<std::string> stores;  ///< HDF5 files, concatenated
  int64_t prefetch = 4;             ///< batches read ahead by a thread
};

/// Opens the files of LoaderOptions::stores.
/// @throws Error naming the file: as LatentStore, or it holds no complete sample.
std::vector<std::shared_ptr<const LatentStore>> open_stores(const std::vector<std::string>& paths);

/// Sample order: a fresh permutation of all clips per epoch, keyed by (seed, epoch); global
/// position p of step s is s * global_batch + p, so an epoch may end inside a batch. Rank r of D
/// takes positions r * (global_batch / D) …; so the global batch of a step does not depend on D or
/// on the accumulation, and starting at any step needs no replay.
class Loader {
 public:
  /// @throws Error: stores of different layouts or codecs (naming both), no stores or samples, a
  /// global batch that data_size * micro_batch does not divide.
  Loader(std::vector<std::shared_ptr<const LatentStore>> stores, uint64_t seed,
         int64_t global_batch, int64_t micro_batch, int64_t data_rank, int64_t data_size,
         int64_t first_step, int64_t prefetch = 4);
  /// Stops the reading thread.
  ~Loader();
  /// The next micro-batch in order (step by step, micro-batch by micro-batch). Blocks until read.
  /// @throws what reading it threw, then and at every call after.
  Batch next();
  /// Seconds the last next() waited.
  double last_wait() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::data
