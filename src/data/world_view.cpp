#include "world_view.h"

#include <algorithm>

#include "world_scene.h"

namespace minwm::data {
namespace {

/// The camera's rays in a frame turned by `yaw` about `centre`.
RayFrame turned_rays(const camera::Rigid& pose, const std::array<double, 3>& centre, double yaw) {
  const camera::Rigid turn = camera::yaw_rotation(-yaw);
  camera::Rigid local = pose;
  for (size_t a = 0; a < 3; ++a) {
    local.translation[a] -= centre[a];
  }
  local = turn * local;
  RayFrame frame{};
  for (size_t a = 0; a < 3; ++a) {
    frame.origin[a] = static_cast<float>(local.translation[a]);
    frame.right[a] = static_cast<float>(local.rotation[3 * a]);
    frame.down[a] = static_cast<float>(local.rotation[3 * a + 1]);
    frame.forward[a] = static_cast<float>(local.rotation[3 * a + 2]);
  }
  return frame;
}

/// Where the eight corners of the object's bounding box are seen; everything if some are behind.
Rectangle image_bounds(const Solid& solid) {
  constexpr float kMargin = 1e-4F;
  constexpr float kFar = 1e30F;
  const RayFrame& f = solid.frame;
  Rectangle bounds = {kFar, -kFar, kFar, -kFar};
  int behind = 0;
  for (int corner = 0; corner < 8; ++corner) {
    const float half[3] = {solid.half_width, solid.half_height, solid.half_width};
    float camera[3] = {0, 0, 0};
    for (int a = 0; a < 3; ++a) {
      const float offset = ((corner >> a & 1) == 1 ? half[a] : -half[a]) - f.origin[a];
      camera[0] += f.right[a] * offset;
      camera[1] += f.down[a] * offset;
      camera[2] += f.forward[a] * offset;
    }
    if (camera[2] < 1e-3F) {
      ++behind;
      continue;
    }
    const float x = camera[0] / camera[2];
    const float y = camera[1] / camera[2];
    bounds = {std::min(bounds.left, x - kMargin), std::max(bounds.right, x + kMargin),
              std::min(bounds.top, y - kMargin), std::max(bounds.bottom, y + kMargin)};
  }
  if (behind > 0 && behind < 8) {
    return {-kFar, kFar, -kFar, kFar};
  }
  return bounds;
}

}  // namespace

FrameView view_of(const World& world, const camera::Rigid& pose) {
  FrameView view{};
  view.camera = turned_rays(pose, {0, 0, 0}, 0);
  for (size_t k = 0; k < world.objects.size(); ++k) {
    const Object& object = world.objects[k];
    Solid& solid = view.objects[k].solid;
    solid.half_width = object.half_width;
    solid.half_height = object.height / 2;
    solid.frame = turned_rays(pose, {object.x, world.ground.height - solid.half_height, object.z},
                              object.yaw);
    const auto& s = world.sky.sun;
    const camera::Vector3 sun = camera::yaw_rotation(-object.yaw).rotate({s[0], s[1], s[2]});
    for (size_t a = 0; a < 3; ++a) {
      solid.sun[a] = static_cast<float>(sun[a]);
    }
    view.objects[k].bounds = image_bounds(solid);
  }
  return view;
}

}  // namespace minwm::data
