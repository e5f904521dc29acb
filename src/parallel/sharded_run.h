#pragma once
// The ways a sharded unit runs.

#include <memory>

#include "minwm/nn/unit_runner.h"
#include "shard_state.h"

namespace minwm::parallel {

/// Without gradients.
nn::Tensors run_plain(ShardState& state, size_t index, const nn::UnitFunction& function,
                      const nn::Tensors& inputs);

/// The graph keeps the inputs; backward gathers the unit and runs it again. `anchored`: no input
/// requires a gradient, the unit's parameters do.
nn::Tensors run_recomputed(const std::shared_ptr<ShardState>& state, size_t index,
                           const nn::UnitFunction& function, const nn::Tensors& inputs,
                           bool anchored);

/// The graph keeps what the unit computes, without the weights, which backward gathers again.
nn::Tensors run_kept(const std::shared_ptr<ShardState>& state, size_t index,
                     const nn::UnitFunction& function, const nn::Tensors& inputs);

}  // namespace minwm::parallel
