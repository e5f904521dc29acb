#pragma once
// A model runs its blocks (units) through a runner, which stands between a block and its weights:
// plainly, with activations recomputed in backward, or with weights that are spread over ranks and
// gathered for the moment. Models do not know which.

#include <functional>
#include <memory>
#include <vector>

#include <torch/torch.h>

namespace minwm::nn {

using Tensors = std::vector<at::Tensor>;
/// What a unit computes. It must draw no random numbers and change no input in place; under
/// gradients it may run twice (once without recording, again in backward), so what it reads besides
/// its inputs must stay as it is and gets no gradient.
using UnitFunction = std::function<Tensors(const Tensors& inputs)>;

class UnitRunner {
 public:
  virtual ~UnitRunner() = default;
  /// At the start of a model's forward: the parameters outside of all units are usable while the
  /// handle lives, and if gradients are recorded until the backward is over. May be null.
  virtual std::shared_ptr<void> begin() = 0;
  /// function(inputs) with unit `index`'s parameters (Backbone::units()) in place. Gradients reach
  /// those parameters and every input that requires them (inputs may be undefined).
  virtual Tensors run(size_t index, const UnitFunction& function, const Tensors& inputs) = 0;
  /// Whether units run again in backward: they then should read the past as it is stored, not a
  /// transformed copy that would have to be kept.
  virtual bool recomputes() const = 0;
};

/// All parameters are here. With `recompute` only a unit's inputs are kept for backward (activation
/// checkpointing).
class LocalUnits : public UnitRunner {
 public:
  LocalUnits(std::vector<std::shared_ptr<torch::nn::Module>> units, bool recompute);
  std::shared_ptr<void> begin() override { return nullptr; }
  Tensors run(size_t index, const UnitFunction& function, const Tensors& inputs) override;
  bool recomputes() const override { return recompute_; }

 private:
  std::vector<std::vector<at::Tensor>> parameters_;
  bool recompute_;
};

}  // namespace minwm::nn
