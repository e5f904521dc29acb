#pragma once
// The MPI handle behind a communicator, for libraries that take one (parallel HDF5).

#include <mpi.h>

#include "minwm/comm/communicator.h"

namespace minwm::comm {

/// The handle of `communicator`, owned by it; MPI_COMM_SELF for self_communicator().
/// @throws Error if MPI was not started (no World).
MPI_Comm mpi_handle(const Communicator& communicator);

}  // namespace minwm::comm
