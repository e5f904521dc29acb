#include "minwm/camera/poses.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/camera/interpolation.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace minwm::camera {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;

at::Tensor path(const std::string& text) {
  return integrate(parse_pose_string(text));
}

/// A path that turns about every axis by large angles.
at::Tensor wild_path() {
  std::vector<Motion> motions;
  for (int i = 0; i < 40; ++i) {
    motions.push_back({.forward = 0.3, .right = -0.1, .up = 0.2, .yaw = 0.7, .pitch = 0.9});
  }
  return integrate(motions);
}

double largest(const at::Tensor& difference) {
  return difference.abs().max().item<double>();
}

TEST(InvertPoses, TwiceGivesThePathBack) {
  const at::Tensor poses = wild_path();
  EXPECT_LT(largest(invert_poses(invert_poses(poses)) - poses), 1e-12);
  EXPECT_LT(largest(at::matmul(invert_poses(poses), poses) - at::eye(4, at::kDouble)), 1e-12);
}

TEST(AlignToFirst, KeepsRelativeMotionAndStartsAtTheIdentity) {
  const at::Tensor views = invert_poses(wild_path());
  const at::Tensor aligned = align_to_first(views.slice(0, 7));
  EXPECT_LT(largest(aligned[0] - at::eye(4, at::kDouble)), 1e-12);
  const at::Tensor relative = at::matmul(views[9], at::linalg_inv(views[8]));
  EXPECT_LT(largest(at::matmul(aligned[2], at::linalg_inv(aligned[1])) - relative), 1e-12);
  EXPECT_THROW(align_to_first(at::zeros({0, 4, 4})), Error);
}

TEST(Poses7, KeepEveryRotation) {
  const at::Tensor views = invert_poses(wild_path());
  const at::Tensor stored = to_poses7(views);
  EXPECT_EQ(stored.scalar_type(), at::kFloat);
  EXPECT_LT(largest(from_poses7(stored) - views), 2e-6);
  EXPECT_LT(largest(stored.narrow(1, 3, 4).norm(2, {1}) - 1), 1e-6);
  at::Tensor opposite = stored.clone();
  opposite.narrow(1, 3, 4).neg_();
  EXPECT_LT(largest(from_poses7(opposite) - views), 2e-6) << "q and -q are one rotation";
}

TEST(Poses7, HalfTurnsAboutEachAxisHaveTheirQuaternion) {
  for (int axis = 0; axis < 3; ++axis) {
    at::Tensor turn = at::eye(4, at::kDouble);
    for (int other = 0; other < 3; ++other) {
      turn[other][other] = other == axis ? 1. : -1.;
    }
    const at::Tensor q = to_poses7(turn.unsqueeze(0))[0];
    EXPECT_NEAR(std::abs(q[3 + axis].item<double>()), 1, 1e-6);
  }
}

TEST(Poses7, RefuseOtherShapesAndNoRotation) {
  EXPECT_THAT(error_of([] { from_poses7(at::zeros({2, 6})); }), HasSubstr("[T, 7]"));
  EXPECT_THAT(error_of([] { from_poses7(at::zeros({2, 7})); }), HasSubstr("quaternion is zero"));
  EXPECT_THAT(error_of([] { to_poses7(at::zeros({2, 3, 4})); }), HasSubstr("[N, 4, 4]"));
}

TEST(RequireRigid, NamesTheFirstBadPose) {
  const auto refused = [](const at::Tensor& poses) {
    return error_of([&] { require_rigid(poses, "clip"); });
  };
  at::Tensor poses = path("w*3");
  EXPECT_NO_THROW(require_rigid(poses, "clip"));
  at::Tensor mirrored = poses.clone();
  mirrored[2][0][0] = -1.;
  EXPECT_THAT(refused(mirrored), HasSubstr("clip: pose 2 is not a rotation"));
  at::Tensor stretched = poses.clone();
  stretched[1][1][1] = 1.1;
  EXPECT_THAT(refused(stretched), HasSubstr("pose 1"));
  at::Tensor projective = poses.clone();
  projective[1][3][0] = 0.1;
  EXPECT_THAT(refused(projective), HasSubstr("last row 0.1 0 0 1"));
  at::Tensor infinite = poses.clone();
  infinite[3][0][3] = INFINITY;
  EXPECT_THAT(refused(infinite), HasSubstr("pose 3 has numbers that are not finite"));
}

TEST(NormalizeIntrinsics, MeasureFocalLengthsInImageSizes) {
  const at::Tensor pixels = intrinsics_matrices(969.6969696969696, 969.6969696969696, 960, 540, 2);
  const at::Tensor k = normalize_intrinsics(pixels);
  EXPECT_NEAR(k[1][0][0].item<double>(), kDefaultFx, 1e-9);
  EXPECT_NEAR(k[1][1][1].item<double>(), kDefaultFy, 1e-9);
  EXPECT_EQ(k[0][0][2].item<double>(), 0.5);
  EXPECT_LT(largest(normalize_intrinsics(pixels / 2) - k), 1e-12) << "of any image size";
  EXPECT_THAT(error_of([] { normalize_intrinsics(intrinsics_matrices(0, 1, 1, 1, 1)); }),
              HasSubstr("positive pixels"));
  EXPECT_THAT(error_of([] { normalize_intrinsics(intrinsics_matrices(1, 1, 0, 1, 1)); }),
              HasSubstr("positive pixels"));
  EXPECT_THAT(error_of([] { normalize_intrinsics(intrinsics_matrices(NAN, 1, 1, 1, 1)); }),
              HasSubstr("positive pixels"));
}

TEST(CropIntrinsics, ScaleByTheLostPart) {
  const at::Tensor k = intrinsics_matrices(0.5, 0.9, 0.5, 0.5, 1);
  const at::Tensor cropped = crop_intrinsics(k, 1920, 1080, 960, 1080);
  EXPECT_NEAR(cropped[0][0][0].item<double>(), 1.0, 1e-12);
  EXPECT_NEAR(cropped[0][1][1].item<double>(), 0.9, 1e-12);
  EXPECT_THAT(error_of([&] { crop_intrinsics(k, 100, 100, 101, 50); }), HasSubstr("cannot crop"));
}

TEST(CamerasFromPoses7, AreAlignedFloatsOfBatchOne) {
  const at::Tensor views = invert_poses(wild_path()).slice(0, 3);
  const Cameras cameras =
      cameras_from_poses7(to_poses7(views), at::tensor({0.6F, 0.8F, 0.4F, 0.5F}));
  EXPECT_EQ(cameras.world_to_camera.sizes(), (std::vector<int64_t>{1, 38, 4, 4}));
  EXPECT_EQ(cameras.world_to_camera.scalar_type(), at::kFloat);
  EXPECT_LT(largest(cameras.world_to_camera[0] - align_to_first(views)), 1e-5);
  EXPECT_FLOAT_EQ(cameras.intrinsics[0][5][0][2].item<float>(), 0.4F) << "the centre as given";
  EXPECT_THAT(error_of([&] { cameras_from_poses7(to_poses7(views), at::ones({3})); }),
              HasSubstr("fx fy cx cy"));
}

TEST(Slerp, TakesTheShortWayAtConstantSpeed) {
  const Quaternion none = {0, 0, 0, 1};
  const auto turn = [](double angle) {
    return Quaternion{0, std::sin(angle / 2), 0, std::cos(angle / 2)};
  };
  const auto angle = [](const Quaternion& q) { return Rigid{.rotation = to_rotation(q)}.angle(); };
  EXPECT_NEAR(angle(slerp(none, turn(1.2), 0.25)), 0.3, 1e-12);
  Quaternion far = turn(1.2);
  for (double& value : far) {
    value = -value;
  }
  EXPECT_NEAR(angle(slerp(none, far, 0.25)), 0.3, 1e-12);
  EXPECT_NEAR(angle(slerp(none, turn(1e-12), 0.5)), 5e-13, 1e-15);
  EXPECT_NEAR(angle(slerp(none, turn(3.14), 0.5)), 1.57, 1e-9);
}

TEST(InterpolatePoses7, IsLinearAndStopsAtTheEnds) {
  const at::Tensor views = invert_poses(path("w+l*2"));
  const at::Tensor poses = interpolate_poses7(to_poses7(views), {0, 10, 30}, {-5, 0, 5, 10, 99});
  const at::Tensor dense = from_poses7(poses);
  EXPECT_LT(largest(dense[0] - views[0]), 1e-6);
  EXPECT_LT(largest(dense[3] - views[1]), 1e-6);
  EXPECT_LT(largest(dense[4] - views[2]), 1e-6);
  EXPECT_LT(largest(dense[2].select(1, 3) - (views[0] + views[1]).select(1, 3) / 2), 1e-6);
  EXPECT_NEAR(to_rigid(dense[2])[0].angle(), kRotationStep / 2, 1e-6);
}

TEST(InterpolatePoses7, RefusesFramesThatDoNotFit) {
  const at::Tensor poses = to_poses7(path("w*2"));
  EXPECT_THAT(error_of([&] {
                interpolate_poses7(poses, {0, 1}, {0});
              }),
              HasSubstr("3 poses for 2 frame indices"));
  EXPECT_THAT(error_of([&] {
                interpolate_poses7(poses, {0, 4, 4}, {0});
              }),
              HasSubstr("4 is followed by 4"));
  EXPECT_THAT(error_of([] {
                interpolate_poses7(at::zeros({0, 7}), {}, {0});
              }),
              HasSubstr("0 poses"));
}

TEST(PickFrames, EndsEachLatentFrameOnAKnownCamera) {
  EXPECT_THAT(*pick_frames({0, 4, 10, 16, 20}, 9), ElementsAre(4, 6, 7, 8, 10, 12, 13, 14, 16))
      << "5.5 and 8.5, 11.5 and 14.5 round to even";
  EXPECT_THAT(*pick_frames({3}, 1), ElementsAre(3));
  EXPECT_FALSE(pick_frames({0, 4}, 9).has_value());
  EXPECT_THAT(error_of([] { pick_frames({0, 4, 8}, 8); }), HasSubstr("expected 4 n + 1"));
  EXPECT_THAT(error_of([] { pick_frames({0, 8, 4}, 9); }), HasSubstr("8 is followed by 4"));
}

}  // namespace
}  // namespace minwm::camera
