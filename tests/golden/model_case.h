#pragma once
// What cases of every family share: their parameters, their layout, their gradients.

#include <map>
#include <string>

#include "case.h"

namespace minwm::golden {

/// Parameters under param/<prefix>.
inline std::map<std::string, at::Tensor> parameters(const Case& c, const std::string& prefix = "") {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& name : c.under("param/" + prefix)) {
    tensors[name] = c.param(prefix + name);
  }
  return tensors;
}

/// The network's [B, C, F, H, W] and ours [B, F, C, H, W].
inline at::Tensor swap_layout(const at::Tensor& x) {
  return x.transpose(1, 2).contiguous();
}

inline int64_t integer(const Case& c, const char* key) {
  return c.config.at(key).get<int64_t>();
}

/// Every grad/… of a case: parameters by name, anything else from `inputs`.
inline void compare_gradients(const Case& c, Report& report, const torch::nn::Module& model,
                              const std::map<std::string, at::Tensor>& inputs) {
  const auto known = model.named_parameters();
  for (const auto& name : c.under("grad/")) {
    const auto input = inputs.find(name);
    const at::Tensor ours = input != inputs.end() ? input->second : known[name].grad();
    report.compare("grad/" + name, ours.defined() ? ours : at::zeros_like(c.grad(name)),
                   c.grad(name));
  }
}

}  // namespace minwm::golden
