#include "minwm/train/signals.h"

#include <atomic>
#include <csignal>

#include <c10/util/Exception.h>

namespace minwm::train {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGUSR1};

// A handler may touch nothing but lock-free atomics; the process has one set of handlers, so this
// has one flag.
std::atomic<bool> came{false};
static_assert(std::atomic<bool>::is_always_lock_free);
struct sigaction former[std::size(kSignals)];

}  // namespace

StopSignals::StopSignals() {
  came = false;
  struct sigaction action {};
  action.sa_handler = [](int) { came = true; };
  action.sa_flags = SA_RESTART;  // reads of a loader thread go on
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    TORCH_INTERNAL_ASSERT(::sigaction(kSignals[i], &action, &former[i]) == 0);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    ::sigaction(kSignals[i], &former[i], nullptr);
  }
}

bool StopSignals::requested() const {
  return came;
}

}  // namespace minwm::train
