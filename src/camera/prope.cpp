#include "minwm/camera/prope.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::camera {

ProjectiveMatrices projective_matrices(const Cameras& cameras) {
  const at::Tensor& v = cameras.world_to_camera;
  require(v.dim() == 4 && v.size(2) == 4 && v.size(3) == 4,
          "cameras: world_to_camera must be [B, T, 4, 4], has {} axes", v.dim());
  const at::Tensor view = v.to(at::kDouble);
  const at::Tensor rotation = view.narrow(2, 0, 3).narrow(3, 0, 3).transpose(2, 3);
  at::Tensor inverse = at::zeros_like(view);
  inverse.narrow(2, 0, 3).narrow(3, 0, 3).copy_(rotation);
  inverse.narrow(2, 0, 3).narrow(3, 3, 1).copy_(
      -at::matmul(rotation, view.narrow(2, 0, 3).narrow(3, 3, 1)));
  inverse.select(2, 3).select(2, 3).fill_(1);
  if (!cameras.intrinsics.defined()) {
    return {view.to(at::kFloat), inverse.to(at::kFloat)};
  }
  const at::Tensor& k = cameras.intrinsics;
  require(k.dim() == 4 && k.size(0) == v.size(0) && k.size(1) == v.size(1) && k.size(2) == 3 &&
              k.size(3) == 3,
          "cameras: intrinsics must be [B, T, 3, 3] like world_to_camera");
  at::Tensor focal = at::ones({v.size(0), v.size(1), 4}, view.options());
  focal.select(2, 0).copy_(k.select(2, 0).select(2, 0));
  focal.select(2, 1).copy_(k.select(2, 1).select(2, 1));
  return {(focal.unsqueeze(3) * view).to(at::kFloat),
          (inverse / focal.unsqueeze(2)).to(at::kFloat)};
}

}  // namespace minwm::camera
