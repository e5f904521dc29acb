#pragma once
// The MPI backend's constructor and its return-code check, for the files of this room and its
// tests.

#include <memory>

#include <mpi.h>

#include "minwm/comm/communicator.h"

namespace minwm::comm {

/// Elements per MPI call: counts are int, and larger buffers go in several calls.
constexpr int64_t kMaxCount = int64_t{1} << 30;

/// Wraps `handle` (which must outlive it). `max_count` is lowered by tests only.
std::shared_ptr<Communicator> make_mpi_communicator(MPI_Comm handle, int64_t max_count = kMaxCount);

/// @throws Error (exit code 70) with MPI's own message unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

}  // namespace minwm::comm
