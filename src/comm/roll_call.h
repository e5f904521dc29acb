#pragma once
// At a timeout: which ranks have not come, and what they do instead.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <mpi.h>

#include "ledger.h"

namespace minwm::comm {

class RollCall {
 public:
  /// `handle` is a communicator of all ranks for questions and answers alone; `hosts` their names.
  RollCall(MPI_Comm handle, std::vector<std::string> hosts);
  RollCall(const RollCall&) = delete;
  RollCall& operator=(const RollCall&) = delete;
  bool several_ranks() const { return hosts_.size() > 1; }
  MPI_Comm world() const { return handle_; }
  void add(const std::shared_ptr<Group>& group);
  /// Answers the questions that have come in since; returns at once.
  void answer();
  /// Asks every rank of `group` whether it has made call `sequence`, and waits at most two seconds.
  /// One line per rank that has not, or that does not answer. Once per process, before its end.
  std::vector<std::string> ask(const Group& group, uint64_t sequence);

 private:
  struct Question {
    uint64_t group;
  };
  struct Answer {
    uint64_t calls;
    double since;  // seconds since the last call
    std::array<char, 240> last;
  };
  Answer about(uint64_t group);

  MPI_Comm handle_;
  std::vector<std::string> hosts_;
  std::mutex mutex_;  // of all below, and of answering
  std::map<uint64_t, std::weak_ptr<Group>> groups_;
  // Sent, perhaps not yet taken by a rank that is ending itself: kept to the end of the process.
  std::vector<std::pair<std::unique_ptr<Answer>, MPI_Request>> answers_;
};

}  // namespace minwm::comm
