#pragma once
// The calls made on one communicator: their order, their number, the last few for messages.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

#include "minwm/comm/communicator.h"

namespace minwm::comm {

/// One collective: what a timeout says about it.
struct Call {
  const char* op = "";
  std::string what;
  std::source_location where;
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  at::ScalarType dtype = at::ScalarType::Byte;
  std::chrono::steady_clock::time_point begun;
  double timeout = 0;        ///< of its own, see CallSite
  double seconds() const;    ///< since it began
  std::string name() const;  ///< all_reduce 'grad' seq 12
  std::string text()
      const;  ///< all_reduce 'grad' seq 12 (32 bytes Float) at src/train/learner.cpp:88
};

/// "src/train/learner.cpp:88", without the folders above the repository's own.
std::string place(const std::source_location& where);

/// Thread-safe: the watchdog reads while the program calls.
class Ledger {
 public:
  /// `counted_bytes` enters the hash, so it must be the same on all ranks.
  Call add(const char* op, const CallSite& site, uint64_t bytes, uint64_t counted_bytes,
           at::ScalarType dtype);
  uint64_t hash() const;
  uint64_t calls() const;
  Call last() const;  ///< of an empty ledger: a call without a name
  /// The last calls, oldest first.
  std::vector<std::string> recent() const;

 private:
  static constexpr size_t kKept = 16;
  mutable std::mutex mutex_;
  std::array<Call, kKept> last_;
  uint64_t calls_ = 0;
  uint64_t hash_ = 0;
};

/// What the watchdog knows of a communicator.
struct Group {
  uint64_t id = 0;               ///< the same on all its ranks, different from other groups'
  std::vector<int> world_ranks;  ///< of its ranks, in order
  Ledger ledger;
  std::atomic<int64_t> bytes_sent{0};
};

}  // namespace minwm::comm
