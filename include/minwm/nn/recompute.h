#pragma once
// Activation checkpointing: keep a block's inputs, run it again in backward.

#include "minwm/nn/unit_runner.h"

namespace minwm::nn {

/// block(inputs), with only `inputs` kept for backward. Gradients reach the inputs that require
/// them and every parameter the block uses.
Tensors recompute(const UnitFunction& block, const Tensors& inputs,
                  const std::vector<at::Tensor>& parameters);

}  // namespace minwm::nn
