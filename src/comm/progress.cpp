#include "progress.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <sys/prctl.h>

#include "abort.h"
#include "minwm/core/error.h"

namespace minwm::comm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::microseconds kPoll{50};
/// Between two looks at operations that move on by themselves.
constexpr std::chrono::milliseconds kWatch{5};
/// After the last operation the thread stays awake for as long, so that a row of short collectives
/// wakes it once.
constexpr std::chrono::milliseconds kLinger{2};
/// Between two looks for questions of other ranks.
constexpr std::chrono::milliseconds kAnswer{500};

}  // namespace

Progress::Progress(std::unique_ptr<RollCall> roll_call) : roll_call_(std::move(roll_call)) {
  if (roll_call_->several_ranks()) {
    start();
  }
}

void Progress::start() {
  thread_ = std::jthread([this](const std::stop_token& token) {
    try {
      run(token);
    } catch (...) {
      const Failure failure = current_failure();
      abort_job(failure.message, failure.exit_code);
    }
  });
}

Progress::~Progress() {
  stop();
}

void Progress::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
  if (!open_.empty()) {
    static_cast<void>(new std::vector<std::shared_ptr<Operation>>(std::move(open_)));
    open_.clear();
  }
}

void Progress::add(std::shared_ptr<Operation> operation) {
  bool asleep = false;
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) {
      if (operation->needs_polling() || stopped_) {
        return;  // a world of one: whoever waits moves it on, and nobody can keep it waiting
      }
      start();  // its errors, its deadline and its buffers want someone who looks
    }
    open_.push_back(std::move(operation));
    asleep = std::exchange(asleep_, false);
  }
  if (asleep) {
    wake_.notify_one();
  }
}

void Progress::take(const std::shared_ptr<Operation>& operation) {
  const std::lock_guard lock(mutex_);
  std::erase(open_, operation);
}

bool Progress::advance_all() {
  std::vector<std::shared_ptr<Operation>> open;
  {
    const std::lock_guard lock(mutex_);
    open = open_;
  }
  bool poll = false;
  for (const auto& operation : open) {
    if (operation->advance()) {
      take(operation);
    } else {
      poll = poll || operation->needs_polling();
      check_deadline(*operation);
    }
  }
  return poll;
}

void Progress::run(const std::stop_token& stop) {
  // Sleep for as long as is asked: the system's default adds 50 us.
  ::prctl(PR_SET_TIMERSLACK, 1000UL);
  auto last_busy = Clock::now();
  auto last_answer = last_busy;
  while (!stop.stop_requested()) {
    const bool poll = advance_all();
    const auto now = Clock::now();
    if (now - last_answer >= kAnswer) {
      roll_call_->answer();
      last_answer = now;
    }
    std::unique_lock lock(mutex_);
    if (!open_.empty()) {
      last_busy = now;
      lock.unlock();
      std::this_thread::sleep_for(poll ? std::chrono::microseconds(kPoll) : kWatch);
    } else if (now - last_busy < kLinger) {
      lock.unlock();
      std::this_thread::sleep_for(kPoll);
    } else {
      asleep_ = true;
      if (wake_.wait_for(lock, stop, kAnswer, [this] { return !open_.empty(); })) {
        last_busy = Clock::now();
        // What ends at once needs no help: its caller most likely waits for it already.
        lock.unlock();
        std::this_thread::sleep_for(kPoll);
      } else {
        asleep_ = false;
      }
    }
  }
}

void Progress::check_deadline(Operation& operation) {
  if (operation.call().seconds() > limit_of(operation.call())) {
    time_out(operation);
  }
}

void Progress::time_out(Operation& operation) {
  // Whichever thread comes first tells; the other waits here for the end of the job.
  ending_.lock();
  const Call& call = operation.call();
  const double elapsed = call.seconds();
  const std::vector<std::string> absent = roll_call_->ask(operation.group(), call.sequence);
  std::string absent_text, recent_text;
  const std::vector<std::string> recent = operation.group().ledger.recent();
  for (const std::string& rank : absent) {
    absent_text += "; " + rank;
  }
  for (const std::string& text : recent) {
    recent_text += (recent_text.empty() ? "" : "; ") + text;
  }
  operation.abandon();
  abort_job_with(
      fmt::format("{} not complete after {:.1f} s (limit {} s, see --parallel.timeout), called at "
                  "{}{}; last calls: {}",
                  call.name(), elapsed, limit_of(call), place(call.where), absent_text,
                  recent_text),
      {{"operation", call.op},
       {"purpose", call.what},
       {"sequence", call.sequence},
       {"call_site", place(call.where)},
       {"elapsed", elapsed},
       {"absent", absent},
       {"last_calls", recent}},
      kExitTimeout);
}

}  // namespace minwm::comm
