#pragma once
// A started collective of any backend, as the progress thread and a waiting caller see it.

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "ledger.h"
#include "minwm/comm/communicator.h"

namespace minwm::comm {

class Progress;

class Operation {
 public:
  Operation(Call call, std::shared_ptr<Group> group)
      : call_(std::move(call)), group_(std::move(group)) {}
  virtual ~Operation() = default;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  const Call& call() const { return call_; }
  Group& group() const { return *group_; }
  bool done() const { return done_; }
  /// Moves it on; true when it is over, well or not. Any thread; never throws.
  bool advance();
  /// Throws what ended it, if it was not the end.
  void rethrow() const;

  /// True if it moves on only while someone polls (MPI); false if it is only watched (NCCL).
  virtual bool needs_polling() const = 0;
  /// Called once before the job ends because of it, from any thread.
  virtual void abandon() noexcept {}

 protected:
  /// True once complete. One thread at a time. @throws whatever ended it.
  virtual bool poll() = 0;

 private:
  const Call call_;
  const std::shared_ptr<Group> group_;
  std::mutex mutex_;  // of poll() and error_
  std::exception_ptr error_;
  std::atomic<bool> done_ = false;
};

/// The handle that a caller holds of an operation whose results are for the CPU. The progress
/// thread moves it on until someone waits, then the waiting thread does: a wait costs no switch
/// between threads.
class CpuWork : public Work {
 public:
  CpuWork(std::shared_ptr<Operation> operation, std::shared_ptr<Progress> progress);
  ~CpuWork() override;
  CpuWork(const CpuWork&) = delete;
  CpuWork& operator=(const CpuWork&) = delete;
  void wait() override;
  bool test() override;

 private:
  std::shared_ptr<Operation> operation_;
  std::shared_ptr<Progress> progress_;
};

}  // namespace minwm::comm
