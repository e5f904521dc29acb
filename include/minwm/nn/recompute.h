#pragma once
// Activation checkpointing: keep a block's inputs, run it again in backward.

#include <functional>
#include <vector>

#include <torch/torch.h>

namespace minwm::nn {

/// y = block(inputs), with only `inputs` kept for backward. Gradients reach the inputs that require
/// them and every parameter the block uses. The block must draw no random numbers and change
/// nothing in place.
at::Tensor recompute(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& block,
                     const std::vector<at::Tensor>& inputs,
                     const std::vector<at::Tensor>& parameters);

}  // namespace minwm::nn
