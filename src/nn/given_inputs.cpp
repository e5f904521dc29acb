#include "minwm/nn/given_inputs.h"

namespace minwm::nn {

GivenInputs::GivenInputs(const Tensors& inputs) {
  for (const auto& input : inputs) {
    defined_.push_back(input.defined());
  }
}

Tensors GivenInputs::present(const Tensors& inputs) const {
  Tensors given;
  for (size_t i = 0; i < defined_.size(); ++i) {
    if (defined_[i]) {
      given.push_back(inputs[i]);
    }
  }
  return given;
}

Tensors GivenInputs::all(const Tensors& present) const {
  Tensors inputs(defined_.size());
  for (size_t i = 0, next = 0; i < inputs.size(); ++i) {
    if (defined_[i]) {
      inputs[i] = present[next++];
    }
  }
  return inputs;
}

}  // namespace minwm::nn
