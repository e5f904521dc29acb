#include "work.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>

#include <c10/core/ScalarType.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "mpi_communicator.h"

namespace minwm::comm {
namespace {

using Clock = std::chrono::steady_clock;

// Most collectives of a step end within the first interval; afterwards sleeping leaves the core to
// the rank that is still computing.
constexpr std::chrono::microseconds kSpin{100};
constexpr std::chrono::microseconds kLongestSleep{500};

uint64_t hash_text(std::string_view text) {
  return stream_key({.seed = 0, .purpose = text});
}

}  // namespace

uint64_t Ledger::add(const char* op, std::string_view what, uint64_t bytes, at::ScalarType dtype) {
  for (const uint64_t part :
       {hash_text(op), hash_text(what), bytes, static_cast<uint64_t>(dtype)}) {
    hash_ = mix64(hash_ ^ part);
  }
  last_[calls_ % kKept] =
      fmt::format("{} '{}' seq {} ({} bytes {})", op, what, calls_, bytes, c10::toString(dtype));
  return calls_++;
}

std::string Ledger::recent() const {
  std::string text;
  for (uint64_t i = calls_ > kKept ? calls_ - kKept : 0; i < calls_; ++i) {
    text += (text.empty() ? "" : "; ") + last_[i % kKept];
  }
  return text;
}

MpiWork::MpiWork(const char* op, std::string_view what, uint64_t sequence,
                 std::shared_ptr<const Deadline> deadline, std::shared_ptr<const Ledger> ledger)
    : op_(op),
      what_(what),
      sequence_(sequence),
      deadline_(std::move(deadline)),
      ledger_(std::move(ledger)),
      started_(Clock::now()) {}

MpiWork::~MpiWork() {
  if (done_) {
    return;
  }
  if (std::uncaught_exceptions() > 0) {
    // The job is about to be aborted; waiting could hang it, and MPI may still write to the
    // buffers, so they are left to the end of the process.
    static_cast<void>(new std::vector<at::Tensor>(std::move(kept_)));
    static_cast<void>(new std::vector<MPI_Request>(std::move(requests_)));
    return;
  }
  try {
    wait();
  } catch (const std::exception& error) {
    abort_job(error.what(), kExitFailure);
  }
}

MPI_Request* MpiWork::request() {
  requests_.push_back(MPI_REQUEST_NULL);
  expected_bytes_.push_back(-1);
  return &requests_.back();
}

void MpiWork::expect_bytes(int bytes) {
  expected_bytes_.back() = bytes;
}

bool MpiWork::test() {
  if (done_) {
    return true;
  }
  std::vector<MPI_Status> statuses(requests_.size());
  int completed = 0;
  const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &completed,
                               statuses.data());
  if (code != MPI_SUCCESS) {
    done_ = true;
    // A receive that was too small is reported per request.
    const auto failed = std::find_if(statuses.begin(), statuses.end(), [](const MPI_Status& s) {
      return s.MPI_ERROR != MPI_SUCCESS && s.MPI_ERROR != MPI_ERR_PENDING;
    });
    const bool per_request = code == MPI_ERR_IN_STATUS && failed != statuses.end();
    check_mpi(per_request ? failed->MPI_ERROR : code, fmt::format("{} '{}'", op_, what_).c_str());
  }
  if (completed == 0) {
    return false;
  }
  done_ = true;
  for (size_t i = 0; i < statuses.size(); ++i) {
    if (expected_bytes_[i] >= 0) {
      int bytes = 0;
      check_mpi(MPI_Get_count(&statuses[i], MPI_BYTE, &bytes), "MPI_Get_count");
      require(bytes == expected_bytes_[i], "{} '{}': received {} bytes, expected {}", op_, what_,
              bytes, expected_bytes_[i]);
    }
  }
  finish();
  return true;
}

void MpiWork::finish() {
  if (action_) {
    action_();
  }
  kept_.clear();
}

void MpiWork::wait() {
  const auto called = Clock::now();
  std::chrono::microseconds nap{10};
  while (!test()) {
    const auto now = Clock::now();
    const double elapsed = std::chrono::duration<double>(now - started_).count();
    if (elapsed > deadline_->seconds) {
      time_out(elapsed);
    }
    if (now - called < kSpin) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(nap);
      nap = std::min(nap * 2, kLongestSleep);
    }
  }
}

void MpiWork::time_out(double elapsed) const {
  abort_job(
      fmt::format("{} '{}' seq {} not complete after {:.1f} s (limit {} s, see "
                  "--parallel.timeout); last calls: {}",
                  op_, what_, sequence_, elapsed, deadline_->seconds.load(), ledger_->recent()),
      kExitTimeout);
}

}  // namespace minwm::comm
