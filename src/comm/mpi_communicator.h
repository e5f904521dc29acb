#pragma once
// The MPI backend's constructor and its return-code check, for the files of this room and its
// tests.

#include <memory>

#include <mpi.h>

#include "minwm/comm/communicator.h"

namespace minwm::comm {

/// Elements per MPI call: counts are int, and larger buffers go in several calls.
constexpr int64_t kMaxCount = int64_t{1} << 30;

class Progress;
struct Group;

/// Wraps the handle of all ranks, which must outlive it.
std::shared_ptr<Communicator> make_mpi_communicator(MPI_Comm handle,
                                                    std::shared_ptr<Progress> progress);

/// `communicator` with fewer elements per MPI call, for tests of split messages.
std::shared_ptr<Communicator> with_max_count(const Communicator& communicator, int64_t max_count);

/// The watchdog behind a communicator and what it knows of it; nothing if it is not over MPI.
struct Watched {
  std::shared_ptr<Progress> progress;
  std::shared_ptr<Group> group;
};
Watched watched(const Communicator& communicator);

/// @throws Error (exit code 70) with MPI's own message unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

}  // namespace minwm::comm
