#pragma once
// How ranks are arranged: replicate x shard x context, context innermost: rank = (r * S + s) * C +
// c.

#include <cstdint>
#include <memory>

#include "minwm/comm/communicator.h"

namespace minwm {
class Options;
}

namespace minwm::comm {

struct MeshOptions {
  int64_t replicate = -1;  ///< copies of the model; -1 = what is left
  int64_t shard = 1;       ///< ranks that share one copy
  int64_t context = 1;     ///< ranks that share one sample's tokens
  double timeout = 600;    ///< seconds a collective may take before the job is aborted
  /// parallel.replicate, parallel.shard, parallel.context, parallel.timeout
  void declare(Options& options);
};

struct Mesh {
  std::shared_ptr<Communicator> world;
  std::shared_ptr<Communicator> data;     ///< replicate x shard: which samples a rank trains on
  std::shared_ptr<Communicator> context;  ///< ranks with the same sample
  int64_t data_rank() const { return data->rank(); }
  int64_t data_size() const { return data->size(); }
};

/// Collective over `world`; sets its timeout.
/// @throws Error if the product of the axes is not the world's size.
Mesh make_mesh(std::shared_ptr<Communicator> world, const MeshOptions& options);

}  // namespace minwm::comm
