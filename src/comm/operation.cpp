#include "operation.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "minwm/core/error.h"
#include "progress.h"

namespace minwm::comm {
namespace {

using Clock = std::chrono::steady_clock;

// Most collectives of a step end within the first interval, and a large one moves on with every
// poll of either end; a rank that waits for long sleeps, so that the core is left to the rank that
// still computes.
constexpr std::chrono::microseconds kSpin{200};
constexpr std::chrono::microseconds kShortSleep{20};
constexpr std::chrono::microseconds kLongSleep{500};
constexpr std::chrono::milliseconds kPatience{20};
constexpr double kSlowestBytesPerSecond = 1e8;

}  // namespace

bool Operation::advance() {
  if (done_) {
    return true;
  }
  const std::lock_guard lock(mutex_);
  if (done_) {
    return true;
  }
  try {
    if (!poll()) {
      return false;
    }
  } catch (...) {
    error_ = std::current_exception();
  }
  done_ = true;
  return true;
}

void Operation::rethrow() const {
  // error_ is written before done_, and only read after it.
  if (done_ && error_) {
    std::rethrow_exception(error_);
  }
}

CpuWork::CpuWork(std::shared_ptr<Operation> operation, std::shared_ptr<Progress> progress)
    : operation_(std::move(operation)), progress_(std::move(progress)) {
  progress_->add(operation_);
}

CpuWork::~CpuWork() {
  if (operation_->done()) {
    return;
  }
  if (std::uncaught_exceptions() > 0) {
    // The job is about to be aborted; waiting could hang it. The progress thread keeps the buffers.
    return;
  }
  try {
    wait();
  } catch (const std::exception& error) {
    abort_job(error.what(), kExitFailure);
  }
}

bool CpuWork::test() {
  if (!operation_->advance()) {
    return false;
  }
  operation_->rethrow();
  return true;
}

void CpuWork::wait() {
  if (!operation_->advance()) {
    progress_->take(operation_);
    const auto begin = Clock::now();
    const std::chrono::duration<double> patience =
        kPatience + std::chrono::duration<double>(static_cast<double>(operation_->call().bytes) /
                                                  kSlowestBytesPerSecond);
    while (!operation_->advance()) {
      const auto now = Clock::now();
      progress_->check_deadline(*operation_);
      if (now - begin < kSpin) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(now - begin < patience ? kShortSleep : kLongSleep);
      }
    }
  }
  operation_->rethrow();
}

}  // namespace minwm::comm
