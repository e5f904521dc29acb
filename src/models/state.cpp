#include "minwm/models/state.h"

#include "minwm/core/error.h"

namespace minwm::models {

void load_state(torch::nn::Module& module, const std::map<std::string, at::Tensor>& tensors,
                const std::string& where) {
  at::NoGradGuard no_grad;
  size_t used = 0;
  for (auto& item : module.named_parameters()) {
    const auto found = tensors.find(item.key());
    require(found != tensors.end(), "{}: lacks the parameter '{}'", where, item.key());
    require(found->second.sizes() == item.value().sizes(),
            "{}: parameter '{}' has shape {}, expected {}", where, item.key(),
            c10::str(found->second.sizes()), c10::str(item.value().sizes()));
    item.value().copy_(found->second);
    ++used;
  }
  if (used != tensors.size()) {
    const auto known = module.named_parameters();
    for (const auto& [name, tensor] : tensors) {
      require(known.contains(name), "{}: has a parameter '{}' that the model does not know", where,
              name);
    }
  }
}

}  // namespace minwm::models
