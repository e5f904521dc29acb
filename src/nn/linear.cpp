#include "minwm/nn/linear.h"

namespace minwm::nn {

at::Tensor linear(const at::Tensor& x, const torch::nn::Linear& layer, at::ScalarType compute) {
  return at::linear(x.to(compute), layer->weight.to(compute),
                    layer->bias.defined() ? layer->bias.to(compute) : layer->bias);
}

NamedLinearsImpl::NamedLinearsImpl(const std::vector<Spec>& specs) {
  for (const auto& spec : specs) {
    layers_.push_back(register_module(spec.name, torch::nn::Linear(spec.in, spec.out)));
  }
}

}  // namespace minwm::nn
