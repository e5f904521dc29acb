#pragma once
// Collectives on CUDA tensors. NCCL is in a library of its own beside the programs, opened when a
// CUDA mesh is asked for: CPU programs neither need it nor load it.

#include <memory>
#include <string>

#include <c10/core/Device.h>

#include "minwm/comm/communicator.h"

namespace minwm::comm {

/// A communicator of the same ranks for contiguous tensors on `device` (open_device made it),
/// ordered by streams: a collective starts when the caller's current stream gets there, on a stream
/// of its own; Work::wait makes the current stream wait and returns at once, Work::test asks
/// whether it is complete. Buffers are the memory of the stream that starts the collective or of
/// the one that waits: after wait() they may be freed, and are used again in that stream's order.
/// Numbers, strings and the order check go through `mpi`. Sums are made in the tensor's own type
/// (bf16 too). Collective over `mpi`, which it keeps; self_communicator()
/// makes a world of one.
/// @throws Error (one line) if `device` is no usable GPU or the library is not there or was not
/// built (CMake option MINWM_CUDA); with exit code 75 if a rank does not come within the timeout.
/// Source: parallel.md sections 2 and 3.5.
std::shared_ptr<Communicator> make_nccl_communicator(std::shared_ptr<Communicator> mpi,
                                                     c10::Device device);

/// The GPUs of this host as JSON: {driver, runtime, nccl: versions, gpus: [{index, name,
/// memory_gib, peers: [index of a GPU that it reaches directly]}]}.
/// @throws Error if the library is not there or CUDA fails.
std::string describe_gpus();

}  // namespace minwm::comm
