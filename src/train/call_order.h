#pragma once
// Whether all ranks made the same collective calls, told by what they exchange anyway in a step.

#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/comm/mesh.h"

namespace minwm::train {

/// This rank's calls so far on each of the mesh's groups, as numbers that a double holds exactly.
std::vector<double> order_of_calls(const comm::Mesh& mesh);

/// `everyone` [ranks, order_of_calls().size()]: @throws Error (exit code 70) naming two ranks of
/// one group that made other calls.
void require_same_order(const comm::Mesh& mesh, const at::Tensor& everyone, int64_t step);

}  // namespace minwm::train
