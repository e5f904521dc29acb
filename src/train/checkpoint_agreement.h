#pragma once
// How the ranks of a save or a check learn that one of them failed.

#include <functional>
#include <string>

#include "minwm/comm/communicator.h"
#include "minwm/core/error.h"

namespace minwm::train {

/// What `body` threw, as one line and an exit code; an empty message if nothing.
Failure failure_of(const std::function<void()>& body);

/// The failure of the first rank that has one, on every rank ("rank 2: …" where there are several);
/// an empty message if none failed. Collective; waits for kDiskPatience if the communicator's own
/// timeout is shorter, because a slow disk is no fault, and with naps, because training wants the
/// cores.
Failure agree(const Failure& mine, comm::Communicator& ranks);

/// Sum of `inout` over ranks, as patiently.
void all_reduce_patiently(const at::Tensor& inout, comm::Communicator& ranks, const char* what);

/// Runs `body` on every rank; if it fails on any, every rank throws that Error.
void run_agreed(comm::Communicator& ranks, const std::function<void()>& body);

}  // namespace minwm::train
