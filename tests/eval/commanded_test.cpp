#include "minwm/eval/commanded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace minwm::eval {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;

at::Tensor path(const std::string& keys) {
  return camera::integrate(camera::parse_pose_string(keys));
}

void expect_same(const at::Tensor& a, const at::Tensor& b) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_TRUE(at::allclose(a, b, 0, 1e-9)) << a << b;
}

TEST(Commanded, EachOfTheNineKeysIsRecognised) {
  EXPECT_THAT(commanded_keys(path("w,s,a,d,j,l,i,k,n")),
              ElementsAre(-1, 0, 1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(Commanded, CompoundAndForeignMotionsAreNoKey) {
  EXPECT_THAT(commanded_keys(path("w+l,u,w")), ElementsAre(-1, -1, -1, 0));
  EXPECT_THAT(commanded_keys(scaled_path(path("w,l"), 1, .5)), ElementsAre(-1, -1, -1));
}

TEST(Commanded, AShortTrajectoryIsPaddedByStandingStillAndALongOneIsCut) {
  const Commanded padded = command_clip(7, {}, 6, 1, "w*2");
  expect_same(padded.camera_to_world, path("w*2,n*3"));
  EXPECT_EQ(padded.trajectory, "w*2");
  expect_same(command_clip(7, {}, 3, 1, "w*9").camera_to_world, path("w*2"));
}

TEST(Commanded, WithoutATrajectoryTheWorldsOwnPathIsTaken) {
  const Commanded a = command_clip(7, {}, 12, 1), b = command_clip(7, {}, 12, 1);
  EXPECT_EQ(a.trajectory, data::random_trajectory(7, 0, 11));
  expect_same(a.camera_to_world, b.camera_to_world);
  EXPECT_EQ(a.frames(), 12);
}

TEST(Commanded, BadClipsAreRefusedInOneLine) {
  EXPECT_THAT(error_of([] { command_clip(7, {}, 12, 12, "w*11"); }), HasSubstr("12 given"));
  EXPECT_THAT(error_of([] { command_clip(7, {}, 12, 0, "w*11"); }), HasSubstr("0 given"));
  EXPECT_THAT(error_of([] { command_clip(7, {}, 12, 1, "w*3,q*4"); }), HasSubstr("q"));
}

TEST(Commanded, AScaledPathScalesEveryMotionAfterTheGivenFrames) {
  const at::Tensor p = path("w*3,l*4");
  expect_same(scaled_path(p, 1, 1), p);
  expect_same(scaled_path(p, 1, 0), path("n*7"));
  expect_same(scaled_path(p, 1, -1), path("s*3,j*4"));
  expect_same(scaled_path(path("a*2,i*2"), 1, -1), path("d*2,k*2"));
  expect_same(scaled_path(p, 4, 0), path("w*3,n*4"));
  EXPECT_NEAR(scaled_path(path("w*4"), 1, .5)[4][2][3].item<double>(), .16, 1e-12);
}

TEST(Commanded, AScaledTurnThenMoveKeepsTheMotionsOfTheCamera) {
  // Half of every motion in the camera's own frame, not half of the positions.
  expect_same(scaled_path(path("l*6,w*4"), 1, .5).slice(0, 0, 7), scaled_path(path("l*6"), 1, .5));
  expect_same(scaled_path(scaled_path(path("l*6,w*4"), 1, .5), 1, 2), path("l*6,w*4"));
}

TEST(Commanded, ADelayedPathStandsStillFirst) {
  expect_same(delayed_path(path("w*3,l*4"), 1, 4), path("n*4,w*3"));
  expect_same(delayed_path(path("w*3,l*4"), 3, 2), path("w*2,n*2,w,l*2"));
}

TEST(Commanded, AnotherPathLeavesFromTheGivenFrames) {
  expect_same(other_path(path("w*7"), 1, "j*7"), path("j*7"));
  expect_same(other_path(path("w*7"), 4, "j*2"), path("w*3,j*2,n*2"));
}

TEST(Commanded, LatentTimeIsEveryFourthFrame) {
  const at::Tensor video = at::arange(9, at::kByte).view({9, 1, 1, 1}).expand({9, 2, 2, 3});
  const at::Tensor frames = latent_time_frames(video);
  ASSERT_EQ(frames.size(0), 3);
  EXPECT_EQ(frames[1][0][0][0].item<int>(), 4);
  EXPECT_EQ(frames[2][1][1][2].item<int>(), 8);
  EXPECT_THAT(error_of([&] { latent_time_frames(video.slice(0, 0, 8)); }), HasSubstr("1 + 4 n"));
}

TEST(Commanded, TheTruthHasOneFramePerVideoFrame) {
  const Commanded clip = command_clip(7, {}, 3, 1, "w*2");
  EXPECT_EQ(render_truth(clip).sizes(), at::IntArrayRef({9, 64, 64, 3}));
}

}  // namespace
}  // namespace minwm::eval
