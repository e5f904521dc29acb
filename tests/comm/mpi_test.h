#pragma once
// For tests that run under mpirun: the world that the test program's main started.

#include "minwm/comm/communicator.h"

namespace minwm::testing {

/// All ranks run the same tests in the same order; a collective that one rank misses ends the job
/// after 30 s.
comm::World& world();

}  // namespace minwm::testing
