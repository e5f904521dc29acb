#include "minwm/nn/unit_runner.h"

#include "minwm/nn/recompute.h"

namespace minwm::nn {

LocalUnits::LocalUnits(std::vector<std::shared_ptr<torch::nn::Module>> units, bool recompute)
    : recompute_(recompute) {
  for (const auto& unit : units) {
    parameters_.push_back(unit->parameters());
  }
}

Tensors LocalUnits::run(size_t index, const UnitFunction& function, const Tensors& inputs) {
  return recompute_ ? recompute(function, inputs, parameters_[index]) : function(inputs);
}

}  // namespace minwm::nn
