#include "checkpoint_agreement.h"

#include <chrono>
#include <thread>

#include <ATen/ATen.h>

#include "minwm/train/checkpoint.h"

namespace minwm::train {

Failure failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (...) {
    Failure failure = current_failure();
    if (failure.message.empty()) {
      failure.message = "failed without a reason";
    }
    return failure;
  }
  return {"", kExitDone};
}

void all_reduce_patiently(const at::Tensor& inout, comm::Communicator& ranks, const char* what) {
  constexpr std::chrono::microseconds kFirstNap{50}, kLongestNap{5000};
  const auto work = ranks.all_reduce_async(inout, comm::CallSite(what).within(kDiskPatience));
  for (auto nap = kFirstNap; !work->test(); nap = std::min(nap * 2, kLongestNap)) {
    std::this_thread::sleep_for(nap);
  }
}

Failure agree(const Failure& mine, comm::Communicator& ranks) {
  at::Tensor codes = at::zeros({ranks.size()}, at::kLong);
  int64_t* const code = codes.mutable_data_ptr<int64_t>();
  if (!mine.message.empty()) {
    code[ranks.rank()] = mine.exit_code == kExitDone ? kExitFailure : mine.exit_code;
  }
  all_reduce_patiently(codes, ranks, "checkpoint agreement");
  for (int rank = 0; rank < ranks.size(); ++rank) {
    if (code[rank] != kExitDone) {
      const std::string place = ranks.size() > 1 ? fmt::format("rank {}: ", rank) : "";
      return {place + ranks.broadcast_string(mine.message, rank, "checkpoint failure"),
              static_cast<int>(code[rank])};
    }
  }
  return {"", kExitDone};
}

void run_agreed(comm::Communicator& ranks, const std::function<void()>& body) {
  const Failure failure = agree(failure_of(body), ranks);
  if (!failure.message.empty()) {
    throw Error(failure.message, failure.exit_code);
  }
}

}  // namespace minwm::train
