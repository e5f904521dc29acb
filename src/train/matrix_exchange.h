#pragma once
// Matrices whose rows are spread over ranks, brought together on one rank each: what an optimizer
// that looks at whole matrices (Muon) needs under sharding.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/comm/communicator.h"

namespace minwm::train {

class MatrixExchange {
 public:
  /// Of one matrix: its elements, and which of them this rank has.
  struct Piece {
    int64_t total = 0, begin = 0, count = 0;
  };
  /// Collective: the ranks tell each other what they have. Matrices are shared out by size; they
  /// are of the type and on the device of `options`.
  MatrixExchange(std::vector<Piece> pieces, std::shared_ptr<comm::Communicator> ranks,
                 const at::TensorOptions& options);

  /// This rank's matrices, flat, from everybody's pieces (one exchange). An undefined piece leaves
  /// its matrix out, on all ranks alike.
  std::map<size_t, at::Tensor> bring_together(const std::vector<at::Tensor>& pieces) const;
  /// The other way: this rank's piece of every matrix that took part, in the order and shapes of
  /// `pieces`.
  std::vector<at::Tensor> hand_back(const std::map<size_t, at::Tensor>& matrices,
                                    const std::vector<at::Tensor>& pieces) const;

 private:
  struct Range {
    int64_t begin, count;
  };
  Range range(int rank, size_t matrix) const;
  /// Elements that go from holders to owners: [peer] for this rank as holder and as owner.
  std::vector<int64_t> counts(const std::vector<at::Tensor>& pieces, bool as_owner) const;

  std::shared_ptr<comm::Communicator> ranks_;
  std::vector<Piece> pieces_;
  std::vector<int> owners_;
  at::TensorOptions options_;
  at::Tensor ranges_;  // [ranks, matrices, 2]
};

}  // namespace minwm::train
