#pragma once
// What one rank writes of a checkpoint, in host memory.

#include <map>
#include <string>
#include <vector>

#include "minwm/train/checkpoint.h"

namespace minwm::train {

/// One tensor of a checkpoint, and the elements of it that this rank writes.
struct Piece {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<int64_t> shape;  ///< of the whole tensor
  int64_t begin = 0;           ///< of `values`, in row-major order
  at::Tensor values;           ///< [n], contiguous, on the CPU; n = 0: others write it

  int64_t numel() const;  ///< of the whole tensor
};

/// Buffers in host memory for copies of tensors by name, kept for the next save; page-locked for
/// what lies on a device.
class HostBuffers {
 public:
  /// A copy of `flat` [n]; the buffer of `name` is overwritten.
  at::Tensor copy(const std::string& name, const at::Tensor& flat);

 private:
  std::map<std::string, at::Tensor> buffers_;
};

/// Every tensor by name, the same names in the same order on all ranks. Without `buffers` the
/// pieces are views of what already lies on the CPU.
/// @throws Error naming a tensor that is both whole and in parts, or a part that does not fit.
std::vector<Piece> pieces_of(const TensorMap& whole, const PartMap& parts, int rank, int size,
                             HostBuffers* buffers);

/// @throws Error on every rank if names, types, shapes or `text` differ between ranks, or if the
/// pieces of a tensor do not add up to it. Collective.
void require_complete(const std::vector<Piece>& pieces, const std::string& text,
                      comm::Communicator& ranks);

}  // namespace minwm::train
