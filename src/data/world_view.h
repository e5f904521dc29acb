#pragma once
// A world as one camera sees it: every object's rays and the part of the image it can cover.

#include <array>

#include "minwm/camera/rigid.h"
#include "world_kernels.h"

namespace minwm::data {

class World;

inline constexpr size_t kMostObjects = 14;

/// A rectangle of the image plane at depth 1.
struct Rectangle {
  float left, right, top, bottom;

  bool meets(const Rectangle& other) const {
    return left <= other.right && other.left <= right && top <= other.bottom && other.top <= bottom;
  }
};

struct ObjectView {
  Solid solid;
  Rectangle bounds;  ///< holds every ray that can hit the object
};

/// What a frame's tiles share.
struct FrameView {
  RayFrame camera;
  std::array<ObjectView, kMostObjects> objects;
};

/// The world from one camera_to_world pose.
FrameView view_of(const World& world, const camera::Rigid& pose);

}  // namespace minwm::data
