#pragma once
// One thread per World: it moves started collectives on while the program computes, ends the job
// when one of them passes the deadline, and answers when another rank asks what this one is doing.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "operation.h"
#include "roll_call.h"

namespace minwm::comm {

class Progress {
 public:
  /// Starts the thread; in a world of one only an operation that is watched (NCCL) starts it:
  /// callers move the others on themselves.
  explicit Progress(std::unique_ptr<RollCall> roll_call);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// Ends the thread; before MPI_Finalize. Operations that are still open keep their buffers
  /// until the process ends, because MPI may write to them.
  void stop();

  void add(std::shared_ptr<Operation> operation);
  /// The caller moves it on from here.
  void take(const std::shared_ptr<Operation>& operation);
  /// Ends the job if the operation has passed the deadline.
  void check_deadline(Operation& operation);
  void watch(const std::shared_ptr<Group>& group) { roll_call_->add(group); }

  /// The communicator of all ranks, by which groups number theirs.
  MPI_Comm world() const { return roll_call_->world(); }

  void set_timeout(double seconds) { timeout_ = seconds; }
  double timeout() const { return timeout_; }

 private:
  void start();
  void run(const std::stop_token& stop);
  /// One round over the open operations; true if one of them needs polling.
  bool advance_all();
  /// Seconds that the call may take.
  double limit_of(const Call& call) const { return std::max(timeout_.load(), call.timeout); }
  [[noreturn]] void time_out(Operation& operation);

  std::atomic<double> timeout_{600};
  std::unique_ptr<RollCall> roll_call_;
  std::mutex ending_;  // one thread tells why the job ends
  std::mutex mutex_;   // of all below
  std::condition_variable_any wake_;
  std::vector<std::shared_ptr<Operation>> open_;
  bool asleep_ = false, stopped_ = false;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace minwm::comm
