#pragma once
// Collectives built from messages between pairs of ranks: every rank sends (N - 1) / N of the
// whole, no more than any algorithm must, and sums are made in rank order.

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "mpi_operation.h"

namespace minwm::comm {

/// Received and not yet summed: at most this much from each other rank, and from all of them.
constexpr int64_t kPieceBytes = int64_t{8} << 20;
constexpr int64_t kArrivedBytes = int64_t{64} << 20;

/// Elements [begin, end) of a buffer, one range per rank.
struct Slices {
  std::vector<int64_t> bounds;  ///< [ranks + 1]
  static Slices even(int64_t numel, int ranks);
  int64_t begin(int rank) const { return bounds[static_cast<size_t>(rank)]; }
  int64_t end(int rank) const { return bounds[static_cast<size_t>(rank) + 1]; }
};

/// Posts: slice `messages.rank` of `from`, summed over ranks, into `to`; afterwards `done` (may be
/// empty) runs as an action of the operation. `to` may be that slice of `from` itself. bf16 and
/// fp16 are summed in float32 and rounded once.
void post_sum_of_slice(MpiOperation& operation, const Messages& messages, const at::Tensor& from,
                       const at::Tensor& to, const Slices& slices, std::function<void()> done);

/// Posts: every rank's slice of `full` to all, from its owner's `mine` (its slice of `full`, or a
/// copy that is moved there).
void post_gather_of_slices(MpiOperation& operation, const Messages& messages,
                           const at::Tensor& mine, const at::Tensor& full, const Slices& slices);

}  // namespace minwm::comm
