#include "minwm/nn/linear.h"

#include "minwm/nn/parameters.h"

namespace minwm::nn {

LinearImpl::LinearImpl(int64_t in, int64_t out)
    : weight(register_parameter("weight", make_parameter({out, in}))),
      bias(register_parameter("bias", make_parameter({out}))) {}

AffineLayerNormImpl::AffineLayerNormImpl(int64_t width, double eps)
    : weight(register_parameter("weight", make_parameter({width}, 1))),
      bias(register_parameter("bias", make_parameter({width}))),
      eps_(eps) {}

at::Tensor linear(const at::Tensor& x, const Linear& layer, at::ScalarType compute) {
  return at::linear(x.to(compute), layer->weight.to(compute), layer->bias.to(compute));
}

NamedLinearsImpl::NamedLinearsImpl(const std::vector<Spec>& specs) {
  for (const auto& spec : specs) {
    layers_.push_back(register_module(spec.name, Linear(spec.in, spec.out)));
  }
}

}  // namespace minwm::nn
