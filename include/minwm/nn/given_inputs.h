#pragma once

#include <vector>

#include "minwm/nn/unit_runner.h"

namespace minwm::nn {

/// Which of a unit's inputs are defined: an autograd Function takes defined tensors only.
class GivenInputs {
 public:
  explicit GivenInputs(const Tensors& inputs);
  /// The defined ones of such inputs, in order.
  Tensors present(const Tensors& inputs) const;
  /// All inputs again, out of the defined ones (what follows them in `present` is left alone).
  Tensors all(const Tensors& present) const;

 private:
  std::vector<bool> defined_;
};

}  // namespace minwm::nn
