#pragma once
// How ranks are arranged: replicate x shard x context, context innermost: rank = (r * S + s) * C +
// c.

#include <cstdint>
#include <memory>

#include <c10/core/Device.h>

#include "minwm/comm/communicator.h"

namespace minwm {
class Options;
}

namespace minwm::comm {

struct MeshOptions {
  int64_t replicate = -1;  ///< copies of the model
  int64_t shard = 1;       ///< ranks that share one copy (times context)
  int64_t context = 1;     ///< ranks that share one sample's tokens
  int64_t ulysses = 0;   ///< of the context ranks, how many exchange heads; the others form a ring;
                         ///< 0 = all of them
  double timeout = 600;  ///< seconds a collective may take before the job is aborted
  /// parallel.replicate, parallel.shard, parallel.context (one of them may be -1: what is left),
  /// parallel.ulysses, parallel.timeout
  void declare(Options& options);
};

/// Communicators of one rank, each for one purpose, so that what may overlap does. World and data
/// move CPU tensors; with a CUDA mesh the others move CUDA tensors. Numbers, strings and the order
/// check go over the CPU on all of them.
struct Mesh {
  std::shared_ptr<Communicator> world;
  std::shared_ptr<Communicator> data;        ///< replicate x shard: which samples a rank trains on
  std::shared_ptr<Communicator> context;     ///< ranks with the same sample
  std::shared_ptr<Communicator> ulysses;     ///< context ranks that exchange heads, innermost
  std::shared_ptr<Communicator> ring;        ///< context ranks that pass keys and values around
  std::shared_ptr<Communicator> parameters;  ///< shard x context: one copy's shards, to gather
  std::shared_ptr<Communicator> gradients;   ///< the same ranks, to reduce
  std::shared_ptr<Communicator> replicate;   ///< ranks with the same shards
  int64_t data_rank() const { return data->rank(); }
  int64_t data_size() const { return data->size(); }
  /// Ranks over which one copy of the weights is spread.
  int64_t copy_size() const { return parameters->size(); }
};

/// Which group of each kind a rank is in: ranks with equal numbers share it.
struct GroupIds {
  int data, context, ulysses, ring, copy, replicate;
};
/// Of a rank of the world, given the sizes of a context group, of its ulysses part, and of the
/// ranks that hold one copy.
GroupIds group_ids(int rank, int context, int ulysses, int copy);

/// Collective over `world`; sets its timeout.
/// @throws Error if the product of the axes is not the world's size.
Mesh make_mesh(std::shared_ptr<Communicator> world, const MeshOptions& options);

/// The mesh for tensors on `device`: with CUDA, context, ulysses, ring, parameters, gradients and
/// replicate become NCCL communicators, each with a stream of its own; with a CPU it is returned
/// unchanged.
/// Collective over the mesh.
/// @throws Error as make_nccl_communicator.
Mesh make_device_mesh(Mesh mesh, c10::Device device);

}  // namespace minwm::comm
