#include "nccl_operation.h"

#include <chrono>
#include <thread>

#include <ATen/ATen.h>

namespace minwm::comm {

void check_nccl(ncclResult_t code, const char* call, std::string_view what) {
  if (code != ncclSuccess && code != ncclInProgress) {
    throw Error(fmt::format("{} '{}': {}", call, what, ncclGetErrorString(code)), kExitFailure);
  }
}

Line::Line(const NcclSetup& setup, double timeout)
    : stream_(c10::cuda::getStreamFromPool(true, setup.device.index())),
      handle_(stream_.stream()),
      timeout_(timeout) {
  ncclUniqueId id;
  if (setup.mpi->rank() == 0) {
    check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId", "init");
  }
  setup.mpi->broadcast(at::from_blob(id.internal, {NCCL_UNIQUE_ID_BYTES}, at::kByte), 0, "NCCL id");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check_nccl(ncclCommInitRankConfig(&comm_, setup.mpi->size(), id, setup.mpi->rank(), &config),
             "ncclCommInitRankConfig", "init");
  try {
    settle("ncclCommInitRankConfig", "init");
  } catch (...) {
    abandon();
    throw;
  }
}

void Line::settle(const char* op, std::string_view what) const {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  ncclResult_t state = ncclInProgress;
  while (true) {
    check_nccl(ncclCommGetAsyncError(comm_, &state), op, what);
    if (state != ncclInProgress) {
      break;
    }
    if (std::chrono::duration<double>(Clock::now() - begin).count() > timeout_) {
      throw Error(fmt::format("{} '{}' not complete after {} s (see --parallel.timeout)", op, what,
                              timeout_),
                  kExitTimeout);
    }
    std::this_thread::yield();
  }
  check_nccl(state, op, what);
}

}  // namespace minwm::comm
