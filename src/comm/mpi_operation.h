#pragma once
// A collective made of MPI requests: one row of them, or several, each posted when the row before
// is complete.

#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>
#include <mpi.h>

#include "operation.h"

namespace minwm::comm {

class MpiOperation : public Operation {
 public:
  using Operation::Operation;
  ~MpiOperation() override;

  /// A slot for the next request of this row. A receive must bring exactly `expected_bytes`, if
  /// that is not negative.
  MPI_Request* request(int expected_bytes = -1);
  /// Buffers that must live until the end.
  void keep(const at::Tensor& tensor) { kept_.push_back(tensor); }
  /// Runs once after the last request of this row, on whichever thread moves the operation on. It
  /// may post another row, with another action after it.
  void then(std::function<void()> action) { action_ = std::move(action); }

  bool needs_polling() const override { return true; }

 private:
  bool poll() override;
  void check_sizes();

  std::vector<MPI_Request> requests_;
  std::vector<int> expected_bytes_;
  std::vector<MPI_Status> statuses_;
  std::vector<at::Tensor> kept_;
  std::function<void()> action_;
};

/// The parts of messages: MPI counts are int.
struct Messages {
  MPI_Comm handle;
  MPI_Datatype type;  ///< of one element
  int64_t width;      ///< its bytes
  int64_t most;       ///< elements per message
  int tag;
  int rank;  ///< this one: what it sends to itself is not counted

  /// Posts elements [begin, end) of `from` to `peer`; at least one message, even of nothing, if
  /// `at_least_one`.
  void send(MpiOperation& operation, const at::Tensor& from, int64_t begin, int64_t end, int peer,
            bool at_least_one = false) const;
  void receive(MpiOperation& operation, const at::Tensor& to, int64_t begin, int64_t end, int peer,
               bool at_least_one = false) const;
};

}  // namespace minwm::comm
