// CheckpointWriter: copies on the caller's thread, writes on its own.

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

#include <spdlog/spdlog.h>

#include "checkpoint_agreement.h"
#include "checkpoint_files.h"
#include "checkpoint_step.h"
#include "minwm/core/error.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFirstNap{1}, kLongestNap{20};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// A save in flight: shared by the writer and its thread, which may outlive it.
struct Job {
  /// Ordered by how bad it is: the ranks compare the largest.
  enum State { kDone, kRunning, kStuck, kFailed, kFailedAlone };
  explicit Job(StepWriter writer_) : writer(std::move(writer_)) {}
  StepWriter writer;
  Failure failure{"", kExitDone};  ///< final once `state` is not kRunning
  std::atomic<State> state = kRunning;

  void run() noexcept {
    failure = failure_of([this] { writer.run(); });
    state = failure.message.empty() ? kDone : writer.failed_alone() ? kFailedAlone : kFailed;
  }
  /// True once it is over; false if it is not within `seconds`.
  bool ends_within(double seconds) const {
    const auto begin = Clock::now();
    for (auto nap = kFirstNap; state == kRunning; nap = std::min(nap * 2, kLongestNap)) {
      if (seconds_since(begin) > seconds) {
        return false;
      }
      std::this_thread::sleep_for(nap);
    }
    return true;
  }
  std::string stuck(double seconds) const {
    return fmt::format(
        "checkpoint of step {} was not saved; older ones are untouched: writing it is not complete "
        "after {} s (a disk or another rank's writer does not answer)",
        writer.step(), seconds);
  }
};

}  // namespace

struct CheckpointWriter::Impl {
  fs::path directory;
  int64_t keep = 1;
  double patience = 0;  ///< seconds
  std::shared_ptr<comm::Communicator> world;
  std::shared_ptr<comm::Communicator> writers;  ///< of the threads alone; nothing: no threads
  HostBuffers buffers;
  std::shared_ptr<Job> job;  ///< nothing: no save in flight on any rank
  std::thread thread;
  bool given_up = false;  ///< threads may be blocked for ever
  int exceptions_at_start = std::uncaught_exceptions();

  [[noreturn]] void fail_on_every_rank(Job::State worst) {
    if (worst == Job::kFailed) {
      // Agreed on among the threads, so that every one of them is about to end with it.
      thread.join();
      const Failure failure = std::exchange(job, nullptr)->failure;
      throw Error(failure.message, failure.exit_code);
    }
    given_up = true;
    if (worst == Job::kStuck) {
      throw Error(job->stuck(patience), kExitTimeout);  // the same on every rank
    }
    const bool mine = job->state == Job::kFailedAlone;
    const Failure failure = agree(mine ? job->failure : Failure{"", kExitDone}, *world);
    throw Error(failure.message, failure.exit_code);
  }

  /// Takes note of how the save in flight stands; `late`: one that still runs here is given up.
  void look(bool late) {
    if (job == nullptr) {
      return;
    }
    const Job::State now = job->state;
    const Job::State mine = now == Job::kRunning && (late || given_up) ? Job::kStuck : now;
    const auto worst = static_cast<Job::State>(world->all_reduce_max(mine, "checkpoint state"));
    if (worst == Job::kRunning) {
      return;
    }
    if (worst != Job::kDone) {
      fail_on_every_rank(worst);
    }
    thread.join();
    job = nullptr;
  }
};

CheckpointWriter::CheckpointWriter(fs::path directory, int64_t keep,
                                   std::shared_ptr<comm::Communicator> world, bool asynchronous,
                                   double patience)
    : impl_(std::make_unique<Impl>()) {
  impl_->directory = std::move(directory);
  impl_->keep = keep;
  impl_->patience = patience;
  impl_->world = std::move(world);
  if (asynchronous) {
    impl_->writers = impl_->world->split(0);
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (!impl_->thread.joinable()) {
    return;
  }
  const auto job = impl_->job;
  const bool several = impl_->world->size() > 1;
  const bool unwinding = std::uncaught_exceptions() > impl_->exceptions_at_start;
  if (impl_->given_up || (several && unwinding)) {
    impl_->thread.detach();  // the job is ending, and other ranks or the disk may never come
    return;
  }
  if (!job->ends_within(impl_->patience)) {
    comm::abort_job(job->stuck(impl_->patience), kExitTimeout);
  }
  impl_->thread.join();
  if (job->state == Job::kDone) {
    return;
  }
  if (several && job->state == Job::kFailedAlone) {
    comm::abort_job(job->failure.message, job->failure.exit_code);  // others may be blocked
  }
  spdlog::error("{}", job->failure.message);
}

void CheckpointWriter::save(const CheckpointInfo& info, const TensorMap& whole,
                            const PartMap& parts, const std::vector<fs::path>& extra_files) {
  wait();
  auto& my = *impl_;
  const bool asynchronous = my.writers != nullptr;
  auto pieces = pieces_of(whole, parts, my.world->rank(), my.world->size(),
                          asynchronous ? &my.buffers : nullptr);
  StepWriter writer(my.directory, my.keep, info, std::move(pieces), extra_files,
                    asynchronous ? my.writers : my.world);
  if (!asynchronous) {
    writer.run();
    return;
  }
  my.job = std::make_shared<Job>(std::move(writer));
  my.thread = std::thread([job = my.job] { job->run(); });
}

void CheckpointWriter::check() {
  impl_->look(false);
}

void CheckpointWriter::wait() {
  const auto begin = Clock::now();
  for (auto nap = kFirstNap; impl_->job != nullptr; nap = std::min(nap * 2, kLongestNap)) {
    impl_->look(seconds_since(begin) > impl_->patience);
    if (impl_->job != nullptr) {
      std::this_thread::sleep_for(nap);
    }
  }
}

fs::path save_checkpoint(const fs::path& directory, const CheckpointInfo& info,
                         const TensorMap& tensors, const std::vector<fs::path>& extra_files,
                         int64_t keep, comm::Communicator& world) {
  // The caller keeps the communicator.
  const std::shared_ptr<comm::Communicator> borrowed(std::shared_ptr<void>(), &world);
  CheckpointWriter(directory, keep, borrowed, false).save(info, tensors, {}, extra_files);
  return directory / step_name(info.step);
}

}  // namespace minwm::train
