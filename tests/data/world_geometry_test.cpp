// What the rendered depth and object maps must satisfy. Spec data-camera-eval 13.9.

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/rigid.h"
#include "minwm/data/world.h"
#include "src/data/world_scene.h"

namespace minwm::data {
namespace {

at::Tensor path(const std::string& keys) {
  return camera::integrate(camera::parse_pose_string(keys));
}

at::Tensor pose_of(const camera::Rigid& rigid) {
  return camera::to_matrices(std::array{rigid});
}

/// The image plane's place of a pixel's centre.
camera::Vector3 ray_through(const WorldStyle& style, double column, double row) {
  const double pixel = 1 / (style.fx * static_cast<double>(style.width));
  return {(column + .5 - static_cast<double>(style.width) / 2) * pixel,
          (row + .5 - static_cast<double>(style.height) / 2) * pixel, 1};
}

/// True where the pixel and its eight neighbours show one object.
at::Tensor inside_one_object(const at::Tensor& ids) {
  const at::Tensor wide = at::constant_pad_nd(ids, {1, 1, 1, 1}, -1);
  at::Tensor same = at::ones_like(ids, at::kBool);
  for (int64_t v = 0; v < 3; ++v) {
    for (int64_t u = 0; u < 3; ++u) {
      same &= wide.narrow(-2, v, ids.size(-2)).narrow(-1, u, ids.size(-1)) == ids;
    }
  }
  return same;
}

World empty_world(const WorldStyle& style) {
  World world = *make_world(3, style);
  world.objects.clear();
  world.ground.height = .5F;
  return world;
}

TEST(WorldDepth, OfTheGroundFollowsFromThePixelRow) {
  for (const WorldStyle& style : {WorldStyle{}, WorldStyle{.width = 90, .height = 50}}) {
    const auto world = make_world(11, style);
    const Rendered view = render(*world, path(""), true);
    int64_t ground = 0;
    for (int64_t row = 0; row < style.height; ++row) {
      const double fy =
          style.fx * static_cast<double>(style.width) / static_cast<double>(style.height);
      const double y = (static_cast<double>(row) + .5) / static_cast<double>(style.height);
      const double expected = world->ground.height / ((y - .5) / fy);
      for (int64_t column = 0; column < style.width; ++column) {
        if (view.objects[0][row][column].item<int32_t>() == 1) {
          ++ground;
          EXPECT_NEAR(view.depth[0][row][column].item<double>() / expected, 1, 1e-5);
        }
      }
    }
    EXPECT_GT(ground, style.width * style.height / 4);
  }
}

TEST(WorldDepth, CarriesPointsOntoTheSameObjectInAnotherFrame) {
  const WorldStyle style = {.width = 96, .height = 96, .samples = 1};
  int64_t points = 0;
  int64_t right = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const at::Tensor poses = path("w*3,d*2,l*2");
    const Rendered view = render(*make_world(seed, style), poses, true);
    const std::vector<camera::Rigid> rigid = camera::to_rigid(poses);
    const at::Tensor inner = inside_one_object(view.objects[0]);
    const at::Tensor inner_last = inside_one_object(view.objects[-1]);
    const camera::Rigid there = camera::inverse(rigid.back()) * rigid.front();
    for (int64_t row = 0; row < style.height; ++row) {
      for (int64_t column = 0; column < style.width; ++column) {
        const auto id = view.objects[0][row][column].item<int32_t>();
        if (id == 0 || !inner[row][column].item<bool>()) {
          continue;
        }
        const double t = view.depth[0][row][column].item<double>();
        camera::Vector3 p =
            ray_through(style, static_cast<double>(column), static_cast<double>(row));
        p = there.rotate({p[0] * t, p[1] * t, t});
        for (size_t a = 0; a < 3; ++a) {
          p[a] += there.translation[a];
        }
        const double scale = style.fx * static_cast<double>(style.width);
        const auto u = static_cast<int64_t>(std::floor(p[0] / p[2] * scale + 48));
        const auto v = static_cast<int64_t>(std::floor(p[1] / p[2] * scale + 48));
        if (u < 0 || v < 0 || u >= 96 || v >= 96 || !inner_last[v][u].item<bool>() ||
            view.depth[-1][v][u].item<double>() < .9 * p[2]) {  // hidden behind something nearer
          continue;
        }
        ++points;
        right += view.objects[-1][v][u].item<int32_t>() == id ? 1 : 0;
      }
    }
  }
  EXPECT_GT(points, 8000);
  EXPECT_EQ(right, points);
}

TEST(WorldSky, IsUnmovedByTranslation) {
  const auto world = make_world(21, {});
  const Rendered view = render(*world, path("w*8,d*2"), true);
  const at::Tensor sky = inside_one_object(view.objects[0]) & (view.objects[0] == 0) &
                         inside_one_object(view.objects[-1]) & (view.objects[-1] == 0);
  EXPECT_GT(sky.sum().item<int64_t>(), 1000);
  EXPECT_TRUE(view.pixels[0].index({sky}).equal(view.pixels[-1].index({sky})));
}

/// Mean difference of the sky from where the homography K R K^-1 of a yaw says it should be.
double sky_error(const World& world, double rendered_yaw, double assumed_yaw) {
  const at::Tensor first = render(world, pose_of({})).pixels[0].to(at::kFloat);
  const at::Tensor turned =
      render(world, pose_of(camera::yaw_rotation(rendered_yaw))).pixels[0].to(at::kFloat);
  const camera::Rigid back = camera::yaw_rotation(-assumed_yaw);
  const double scale = world.style.fx * static_cast<double>(world.style.width);
  double sum = 0;
  int64_t points = 0;
  for (int64_t row = 4; row < world.style.height / 2 - 2; ++row) {
    for (int64_t column = world.style.width / 2; column < world.style.width - 20; ++column) {
      const camera::Vector3 d = back.rotate(
          ray_through(world.style, static_cast<double>(column), static_cast<double>(row)));
      const double u = d[0] / d[2] * scale + static_cast<double>(world.style.width) / 2 - .5;
      const double v = d[1] / d[2] * scale + static_cast<double>(world.style.height) / 2 - .5;
      const auto left = static_cast<int64_t>(std::floor(u));
      const auto top = static_cast<int64_t>(std::floor(v));
      if (left < 0 || top < 0) {
        continue;
      }
      const double a = u - static_cast<double>(left);
      const double b = v - static_cast<double>(top);
      const at::Tensor expected =
          (1 - b) * ((1 - a) * turned[top][left] + a * turned[top][left + 1]) +
          b * ((1 - a) * turned[top + 1][left] + a * turned[top + 1][left + 1]);
      sum += (expected - first[row][column]).abs().mean().item<double>();
      ++points;
    }
  }
  return sum / static_cast<double>(points);
}

TEST(WorldSky, TurnsByTheHomographyOfTheYaw) {
  const World world = empty_world({.width = 96, .height = 64, .samples = 3});
  const double yaw = 4.3 * std::numbers::pi / 180;
  EXPECT_LT(sky_error(world, yaw, yaw), 2);
  EXPECT_GT(sky_error(world, yaw, 0), 3 * sky_error(world, yaw, yaw));
  EXPECT_GT(sky_error(world, yaw, -yaw), 3 * sky_error(world, yaw, yaw));
}

TEST(WorldGeometry, TheMirroredPathThroughTheMirroredWorldSeesTheMirrorImage) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const World world = *make_world(seed, {});
    World mirrored = world;
    for (Object& object : mirrored.objects) {
      object.x = -object.x;
      object.yaw = -object.yaw;
    }
    const Rendered view = render(world, path("w*4,l*3,d*2,k*1"), true);
    const Rendered image = render(mirrored, path("w*4,j*3,a*2,k*1"), true);
    EXPECT_LE((view.objects != image.objects.flip(2)).sum().item<int64_t>(), 4) << "seed " << seed;
    const at::Tensor near = (view.depth - image.depth.flip(2)).abs() <= 1e-3 * view.depth;
    EXPECT_LE(near.logical_not().sum().item<int64_t>(), 4) << "seed " << seed;
  }
}

TEST(WorldGeometry, RaysParallelToFacesNeitherHitByAccidentNorGiveNonsense) {
  // An odd image has rays straight ahead; the camera stands in the plane of faces, or on an edge
  // line.
  const WorldStyle style = {.width = 33, .height = 33, .samples = 1};
  for (const Shape shape : {Shape::kBox, Shape::kPillar, Shape::kBall}) {
    for (const float x : {-.3F, 0.F, .3F}) {
      World world = empty_world(style);
      Object object;
      object.shape = shape;
      object.x = x;
      object.z = 2;
      object.half_width = .3F;
      object.height = shape == Shape::kBall ? .6F : 1.F;  // its middle is level with the camera
      world.ground.height = object.height / 2;
      object.texture = world.ground.texture;
      world.objects = {object};
      const camera::Rigid down = {
          .rotation = camera::pitch_rotation(-std::numbers::pi / 2).rotation,
          .translation = {x + .3, -3, 2}};
      for (const camera::Rigid& pose :
           {camera::Rigid{}, camera::Rigid{.translation = {0, -.5, 0}}, down}) {
        const Rendered view = render(world, pose_of(pose), true);
        EXPECT_TRUE(view.depth.isfinite().all().item<bool>());
        EXPECT_GE(view.depth.min().item<float>(), 0);
        EXPECT_LT(view.depth.max().item<float>(), 60.001);
      }
      const at::Tensor ids = render(world, pose_of({}), true).objects[0];
      // A ray in the plane of a face belongs to the box on one side of it, not to both.
      EXPECT_EQ(ids[16][16].item<int32_t>() == 2, x == 0 || (shape == Shape::kBox && x > 0))
          << "x " << x;
      EXPECT_EQ(ids[16][18].item<int32_t>() == 2, x >= 0) << "x " << x;
      EXPECT_EQ(ids[16][14].item<int32_t>() == 2, x <= 0) << "x " << x;
    }
  }
}

TEST(WorldGeometry, AnObjectAroundTheCameraIsNotSeen) {
  World world = empty_world({});
  Object box;
  box.half_width = .4F;
  box.height = 1;  // from the ground half a unit below the camera to half a unit above it
  world.objects = {box};
  EXPECT_FALSE((render(world, pose_of({}), true).objects == 2).any().item<bool>());
}

}  // namespace
}  // namespace minwm::data
