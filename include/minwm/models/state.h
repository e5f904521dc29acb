#pragma once

#include <functional>
#include <map>
#include <string>

#include <torch/torch.h>

namespace minwm::models {

/// Copies tensors into a module's parameters by name, strictly: a missing, extra or mis-shaped
/// tensor is an Error that names it and `where` (file). Values are converted to the parameter's
/// type.
void load_state(torch::nn::Module& module, const std::map<std::string, at::Tensor>& tensors,
                const std::string& where);

}  // namespace minwm::models
