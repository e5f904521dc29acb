#pragma once
// A started MPI collective, its deadline, and the record that a timeout prints.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>
#include <mpi.h>

#include "minwm/comm/communicator.h"

namespace minwm::comm {

/// One deadline for all communicators of a World.
struct Deadline {
  std::atomic<double> seconds{600};
};

/// The calls made on one communicator: their number, a hash of all, the names of the last few.
class Ledger {
 public:
  /// Returns the sequence number of the call.
  uint64_t add(const char* op, std::string_view what, uint64_t bytes, at::ScalarType dtype);
  uint64_t hash() const { return hash_; }
  /// "all_reduce 'grad' seq 12; …", oldest first.
  std::string recent() const;

 private:
  static constexpr size_t kKept = 16;
  std::array<std::string, kKept> last_;
  uint64_t calls_ = 0;
  uint64_t hash_ = 0;
};

/// Waits for its requests by polling, so that a hang ends at the deadline instead of never.
class MpiWork : public Work {
 public:
  MpiWork(const char* op, std::string_view what, uint64_t sequence,
          std::shared_ptr<const Deadline> deadline, std::shared_ptr<const Ledger> ledger);
  ~MpiWork() override;
  MpiWork(const MpiWork&) = delete;
  MpiWork& operator=(const MpiWork&) = delete;

  /// A slot for the next request of this collective.
  MPI_Request* request();
  /// Buffers that must live until the end.
  void keep(const at::Tensor& tensor) { kept_.push_back(tensor); }
  /// Runs once after the last request, e.g. rounding a float32 sum.
  void then(std::function<void()> action) { action_ = std::move(action); }
  /// Receives into the request made last must bring exactly `bytes`.
  void expect_bytes(int bytes);

  void wait() override;
  bool test() override;

 private:
  void finish();
  [[noreturn]] void time_out(double elapsed) const;

  const char* op_;
  std::string what_;
  uint64_t sequence_;
  std::shared_ptr<const Deadline> deadline_;
  std::shared_ptr<const Ledger> ledger_;
  std::chrono::steady_clock::time_point started_;
  std::vector<MPI_Request> requests_;
  std::vector<int> expected_bytes_;  // -1: not checked
  std::vector<at::Tensor> kept_;
  std::function<void()> action_;
  bool done_ = false;
};

}  // namespace minwm::comm
