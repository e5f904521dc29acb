#pragma once
// The order in which the HY line's published training visits its samples. Ours is loader.h; this
// one replays theirs. Spec data-camera-eval 10.4.

#include <cstdint>
#include <vector>

namespace minwm::data {

struct UpstreamSampler {
  int64_t samples = 0;            ///< N of the index file
  int64_t batch = 1;              ///< samples per step of a sequence-parallel group
  int64_t ranks = 1;              ///< of the whole job
  int64_t sequence_parallel = 1;  ///< ranks that share a sample; divides `ranks`
  bool drop_last = true;          ///< false: the first samples come again to fill the last batch
  bool drop_first = false;        ///< leave out sample 0
  uint64_t seed = 0;
};

/// PyTorch's random permutation of 0 … count - 1 for this seed (CPU generator, mt19937).
std::vector<int64_t> upstream_permutation(int64_t count, uint64_t seed);

/// The samples that `rank` visits, in order, the same every epoch: group rank / sequence_parallel
/// takes every G-th entry of the cut or filled up permutation.
/// @throws Error naming the value: no samples, batch, ranks < 1, sequence_parallel not a divisor of
/// ranks, rank outside 0 … ranks - 1.
/// Golden kind camera.data.sampler.
std::vector<int64_t> upstream_order(const UpstreamSampler& sampler, int64_t rank);

}  // namespace minwm::data
