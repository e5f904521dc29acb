#include "minwm/diffusion/guidance.h"

#include <ATen/ATen.h>

namespace minwm::diffusion {

at::Tensor guide(const at::Tensor& conditional, const at::Tensor& unconditional, double scale) {
  return unconditional + scale * (conditional - unconditional);
}

at::Tensor guide_beyond(const at::Tensor& conditional, const at::Tensor& unconditional,
                        double scale) {
  return conditional + scale * (conditional - unconditional);
}

}  // namespace minwm::diffusion
