#include "roll_call.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "minwm/core/error.h"
#include "mpi_communicator.h"

namespace minwm::comm {
namespace {

constexpr int kQuestionTag = 1;
constexpr int kAnswerTag = 2;
constexpr std::chrono::milliseconds kPatience{2000};

/// The sender of a message that is there, or -1.
int sender_of_next(MPI_Comm handle, int tag) {
  int there = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, tag, handle, &there, &status), "MPI_Iprobe");
  return there != 0 ? status.MPI_SOURCE : -1;
}

}  // namespace

RollCall::RollCall(MPI_Comm handle, std::vector<std::string> hosts)
    : handle_(handle), hosts_(std::move(hosts)) {}

void RollCall::add(const std::shared_ptr<Group>& group) {
  const std::lock_guard lock(mutex_);
  groups_[group->id] = group;
}

RollCall::Answer RollCall::about(uint64_t group) {
  Answer answer{};
  const auto found = groups_.find(group);
  const auto known = found == groups_.end() ? nullptr : found->second.lock();
  if (known) {
    const Call last = known->ledger.last();
    answer.calls = known->ledger.calls();
    answer.since = answer.calls > 0 ? last.seconds() : 0;
    const std::string text = answer.calls > 0 ? last.text() : "none";
    std::strncpy(answer.last.data(), text.c_str(), answer.last.size() - 1);
  }
  return answer;
}

void RollCall::answer() {
  const std::lock_guard lock(mutex_);
  for (int asker = sender_of_next(handle_, kQuestionTag); asker >= 0;
       asker = sender_of_next(handle_, kQuestionTag)) {
    Question question{};
    check_mpi(MPI_Recv(&question, sizeof question, MPI_BYTE, asker, kQuestionTag, handle_,
                       MPI_STATUS_IGNORE),
              "MPI_Recv");
    answers_.emplace_back(std::make_unique<Answer>(about(question.group)), MPI_REQUEST_NULL);
    check_mpi(MPI_Isend(answers_.back().first.get(), sizeof(Answer), MPI_BYTE, asker, kAnswerTag,
                        handle_, &answers_.back().second),
              "MPI_Isend");
  }
}

std::vector<std::string> RollCall::ask(const Group& group, uint64_t sequence) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  int self = 0;
  check_mpi(MPI_Comm_rank(handle_, &self), "MPI_Comm_rank");
  // Never freed: the process ends with this call, and a stopped rank does not take its message.
  auto& question = *new Question{group.id};
  std::map<int, std::optional<Answer>> answers;
  for (const int rank : group.world_ranks) {
    if (rank != self) {
      answers[rank] = std::nullopt;
      check_mpi(MPI_Isend(&question, sizeof question, MPI_BYTE, rank, kQuestionTag, handle_,
                          new MPI_Request),
                "MPI_Isend");
    }
  }
  size_t missing = answers.size();
  while (missing > 0 && std::chrono::steady_clock::now() < end) {
    answer();
    for (int rank = sender_of_next(handle_, kAnswerTag); rank >= 0;
         rank = sender_of_next(handle_, kAnswerTag)) {
      Answer answer{};
      check_mpi(
          MPI_Recv(&answer, sizeof answer, MPI_BYTE, rank, kAnswerTag, handle_, MPI_STATUS_IGNORE),
          "MPI_Recv");
      answers[rank] = answer;
      --missing;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::vector<std::string> absent;
  for (const auto& [rank, answer] : answers) {
    const std::string who = fmt::format("rank {} ({})", rank, hosts_[static_cast<size_t>(rank)]);
    if (!answer) {
      absent.push_back(who + " does not answer: stopped, starved or cut off");
    } else if (answer->calls <= sequence) {
      absent.push_back(fmt::format("{} has not called it, its last call is {}, {:.1f} s ago", who,
                                   answer->last.data(), answer->since));
    }
  }
  return absent;
}

}  // namespace minwm::comm
