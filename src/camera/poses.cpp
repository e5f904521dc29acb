#include "minwm/camera/poses.h"

#include <ATen/ATen.h>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"

namespace minwm::camera {

at::Tensor invert_poses(const at::Tensor& poses) {
  std::vector<Rigid> motions = to_rigid(poses);
  for (Rigid& motion : motions) {
    motion = inverse(motion);
  }
  return to_matrices(motions);
}

at::Tensor align_to_first(const at::Tensor& world_to_camera) {
  std::vector<Rigid> views = to_rigid(world_to_camera);
  require(!views.empty(), "camera poses: there is no pose to align to");
  const Rigid first = inverse(views[0]);
  for (Rigid& view : views) {
    view = view * first;
  }
  return to_matrices(views);
}

at::Tensor to_poses7(const at::Tensor& world_to_camera) {
  const std::vector<Rigid> views = to_rigid(world_to_camera);
  at::Tensor out = at::empty({static_cast<int64_t>(views.size()), 7}, at::kDouble);
  double* row = out.mutable_data_ptr<double>();
  for (const Rigid& view : views) {
    const Quaternion q = to_quaternion(view.rotation);
    row = std::copy(view.translation.begin(), view.translation.end(), row);
    row = std::copy(q.begin(), q.end(), row);
  }
  return out.to(at::kFloat);
}

at::Tensor from_poses7(const at::Tensor& poses7) {
  require(poses7.dim() == 2 && poses7.size(1) == 7, "camera poses must be [T, 7], got {} axes",
          poses7.dim());
  const at::Tensor host = poses7.detach().cpu().to(at::kDouble).contiguous();
  std::vector<Rigid> views(static_cast<size_t>(host.size(0)));
  const double* row = host.const_data_ptr<double>();
  for (Rigid& view : views) {
    view.translation = {row[0], row[1], row[2]};
    view.rotation = to_rotation({row[3], row[4], row[5], row[6]});
    row += 7;
  }
  return to_matrices(views);
}

at::Tensor intrinsics_matrices(double fx, double fy, double cx, double cy, int64_t frames) {
  return at::tensor({fx, 0., cx, 0., fy, cy, 0., 0., 1.}, at::kDouble)
      .reshape({1, 3, 3})
      .repeat({frames, 1, 1});
}

at::Tensor normalize_intrinsics(const at::Tensor& pixels) {
  require(pixels.dim() == 3 && pixels.size(1) == 3 && pixels.size(2) == 3,
          "intrinsics must be [T, 3, 3]");
  const at::Tensor k = pixels.detach().cpu().to(at::kDouble);
  const at::Tensor focal = at::stack({k.select(1, 0).select(1, 0), k.select(1, 1).select(1, 1)}, 1);
  const at::Tensor center =
      at::stack({k.select(1, 0).select(1, 2), k.select(1, 1).select(1, 2)}, 1);
  require(focal.gt(0).all().item<bool>() && center.gt(0).all().item<bool>() &&
              focal.isfinite().all().item<bool>() && center.isfinite().all().item<bool>(),
          "intrinsics: focal lengths and centres must be positive pixels");
  at::Tensor out = intrinsics_matrices(1, 1, 0.5, 0.5, k.size(0));
  out.select(1, 0).select(1, 0).copy_(focal.select(1, 0) / (2 * center.select(1, 0)));
  out.select(1, 1).select(1, 1).copy_(focal.select(1, 1) / (2 * center.select(1, 1)));
  return out;
}

at::Tensor crop_intrinsics(const at::Tensor& intrinsics, double width, double height,
                           double crop_width, double crop_height) {
  require(crop_width > 0 && crop_height > 0 && crop_width <= width && crop_height <= height,
          "cannot crop {} x {} out of {} x {}", crop_width, crop_height, width, height);
  at::Tensor out = intrinsics.clone();
  out.select(1, 0).select(1, 0).mul_(width / crop_width);
  out.select(1, 1).select(1, 1).mul_(height / crop_height);
  return out;
}

Cameras cameras_from_poses7(const at::Tensor& poses7, const at::Tensor& intrinsics4) {
  require(intrinsics4.numel() == 4, "intrinsics must be fx fy cx cy, got {} numbers",
          intrinsics4.numel());
  const at::Tensor k = intrinsics4.detach().cpu().to(at::kDouble).reshape({4});
  const auto at = [&](int64_t i) { return k[i].item<double>(); };
  return {
      align_to_first(from_poses7(poses7)).to(at::kFloat).unsqueeze(0),
      intrinsics_matrices(at(0), at(1), at(2), at(3), poses7.size(0)).to(at::kFloat).unsqueeze(0)};
}

}  // namespace minwm::camera
