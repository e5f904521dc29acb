#include "minwm/nn/norm.h"

namespace minwm::nn {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (x.scalar_type() == weight.scalar_type() && x.scalar_type() == at::kFloat) {
    return at::rms_norm(x, {x.size(-1)}, weight, eps);
  }
  const at::Tensor normed = at::rms_norm(x.to(at::kFloat), {x.size(-1)}, {}, eps);
  return normed.to(x.scalar_type()) * weight.to(x.scalar_type());
}

RmsNormImpl::RmsNormImpl(int64_t width, double eps)
    : eps_(eps), weight_(register_parameter("weight", at::ones({width}))) {}

at::Tensor layer_norm(const at::Tensor& x, double eps) { return at::layer_norm(x, {x.size(-1)}, {}, {}, eps); }

}  // namespace minwm::nn
