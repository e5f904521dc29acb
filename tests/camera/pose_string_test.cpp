#include "minwm/camera/pose_string.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string canonical(const std::string& text) {
  return to_pose_string(parse_pose_string(text));
}

std::string message(const std::string& text) {
  try {
    parse_pose_string(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(PoseString, ReadsEverySpellingOfThePublishedPrograms) {
  EXPECT_EQ(canonical("a*4,w*8,s*7"), "a*4,w*8,s*7");
  EXPECT_EQ(canonical("right-8, a-11"), "l*8,a*11");
  EXPECT_EQ(canonical(" w-3 , "), "w*3");
  EXPECT_EQ(canonical(""), "");
  EXPECT_EQ(canonical("up*2,down*2,left*1"), "i*2,k*2,j*1");
}

TEST(PoseString, ReadsTheSuperset) {
  EXPECT_EQ(canonical("W+L*8; u:2\nDN"), "w+l*8,u*2,dn*1");
  EXPECT_EQ(canonical("l+w*8"), "w+l*8");
  EXPECT_EQ(canonical(".*3,none,n-2"), ".*6");
  EXPECT_EQ(canonical("Forward * 2, left_strafe*1, rise"), "w*2,a*1,u*1");
  EXPECT_EQ(canonical("w*2,w*3,d*0,w*007"), "w*12");
}

TEST(PoseString, WritesWhatItReads) {
  const std::string text = "w+d+dn+l+k*3,.*2,s*11,u+j+i*1";
  EXPECT_EQ(canonical(text), text);
  EXPECT_THAT(message(canonical("w+l*8;u:2\nDN")), "accepted");
}

TEST(PoseString, RefusesToWriteMotionsThatNoKeyMakes) {
  EXPECT_THROW(to_pose_string({Motion{.forward = 0.04}}), Error);
  EXPECT_THROW(to_pose_string({Motion{.third_person_yaw = kRotationStep}}), Error);
}

TEST(PoseString, ErrorsNamePiecePositionAndReason) {
  EXPECT_THAT(message("w*3, q*2"), AllOf(HasSubstr("piece 2 'q*2' at character 6"),
                                         HasSubstr("unknown key 'q'"), HasSubstr("w s a d")));
  EXPECT_THAT(message("w*3.5"), HasSubstr("'3.5' is not a whole number"));
  EXPECT_THAT(message("w--3"), HasSubstr("'-3' is not a whole number"));
  EXPECT_THAT(message("w-3-2"), HasSubstr("'3-2' is not a whole number"));
  EXPECT_THAT(message("w*"), HasSubstr("the count is missing"));
  EXPECT_THAT(message("w 3"), HasSubstr("unknown key 'w 3'"));
  EXPECT_THAT(message("w+s*3"), HasSubstr("'s' moves along the axis"));
  EXPECT_THAT(message("w+.*3"), HasSubstr("standing still"));
  EXPECT_THAT(message("w+*3"), HasSubstr("unknown key ''"));
  EXPECT_THAT(message("*3"), HasSubstr("unknown key ''"));
  EXPECT_THAT(message("w*99999999999999999999999"), HasSubstr("more than 100000 motions"));
  EXPECT_THAT(message("w*60000,s*60000"), HasSubstr("piece 2"));
}

TEST(Integrate, StartsAtTheIdentityAndAddsOnePosePerMotion) {
  const at::Tensor poses = integrate(parse_pose_string("w*3,l*2"));
  EXPECT_EQ(poses.sizes(), (std::vector<int64_t>{6, 4, 4}));
  EXPECT_TRUE(at::equal(poses[0], at::eye(4, at::kDouble)));
  EXPECT_NEAR(poses[5][2][3].item<double>(), 0.24, 1e-12);
  EXPECT_NEAR(poses[5][0][2].item<double>(), std::sin(2 * kRotationStep), 1e-12);
}

TEST(Integrate, TurnsBeforeItMovesInACompoundStep) {
  const at::Tensor pose = integrate(parse_pose_string("w+l"))[1];
  EXPECT_NEAR(pose[0][3].item<double>(), kStep * std::sin(kRotationStep), 1e-12);
  EXPECT_NEAR(pose[2][3].item<double>(), kStep * std::cos(kRotationStep), 1e-12);
}

TEST(Integrate, MovesUpAgainstTheYAxis) {
  EXPECT_NEAR(integrate(parse_pose_string("u*2"))[2][1][3].item<double>(), -0.16, 1e-12);
  EXPECT_GT(integrate(parse_pose_string("i"))[1][2][1].item<double>(), 0);
}

TEST(Integrate, OrbitsAboutThePointOneUnitAhead) {
  const at::Tensor poses =
      integrate(std::vector<Motion>(30, Motion{.third_person_yaw = kRotationStep}));
  for (int64_t i = 0; i < poses.size(0); ++i) {
    const at::Tensor ahead = poses[i].select(1, 3) + poses[i].select(1, 2);
    EXPECT_TRUE(at::allclose(ahead, at::tensor({0., 0., 1., 1.}, at::kDouble), 0, 1e-12)) << i;
  }
}

TEST(Integrate, StaysRigidOverLongPaths) {
  std::vector<Motion> motions(1000, Motion{.forward = kStep, .yaw = 0.031, .pitch = 0.017});
  EXPECT_NO_THROW(require_rigid(integrate(motions), "path", 1e-12));
}

TEST(StepPose, ContinuesWhatIntegrateBegan) {
  const auto motions = parse_pose_string("w+l*3,i*2,a*2");
  at::Tensor pose = at::eye(4, at::kDouble);
  for (const Motion& motion : motions) {
    pose = step_pose(pose, motion);
  }
  EXPECT_TRUE(at::equal(pose, integrate(motions)[-1]));
}

TEST(MakeCameras, AlignsCutsAndPads) {
  const at::Tensor poses = integrate(parse_pose_string("w*5,l*5")).narrow(0, 3, 8);
  const Cameras all = make_cameras(poses, kDefaultFx, kDefaultFy);
  EXPECT_EQ(all.world_to_camera.sizes(), (std::vector<int64_t>{1, 8, 4, 4}));
  EXPECT_TRUE(at::allclose(all.world_to_camera[0][0], at::eye(4)));
  EXPECT_NEAR(all.world_to_camera[0][1][2][3].item<double>(), -kStep, 1e-6);
  const Cameras padded = make_cameras(poses, kDefaultFx, kDefaultFy, 12);
  EXPECT_EQ(padded.world_to_camera.size(1), 12);
  EXPECT_EQ(padded.intrinsics.size(1), 12);
  EXPECT_TRUE(at::equal(padded.world_to_camera[0][11], all.world_to_camera[0][7]));
  const Cameras cut = make_cameras(poses, kDefaultFx, kDefaultFy, 4);
  EXPECT_TRUE(at::equal(cut.world_to_camera, all.world_to_camera.narrow(1, 0, 4)));
  EXPECT_THROW(make_cameras(poses, 0, 1), Error);
}

TEST(PoseString, ReadsEveryTrajectoryOfTheExampleSet) {
  std::ifstream file(MINWM_SHARED_DATA "/data/example.json");
  if (!file) {
    GTEST_SKIP() << "shared data is not here";
  }
  const auto examples = nlohmann::json::parse(file);
  std::ifstream inputs(MINWM_SHARED_DATA "/data/preencode_input.json");
  const auto dashes = nlohmann::json::parse(inputs);
  ASSERT_EQ(examples.size(), dashes.size());
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto star = parse_pose_string(examples[i]["trajectory"].get<std::string>());
    EXPECT_EQ(star.size(), 19U);
    const auto dash = parse_pose_string(dashes[i]["pose_str"].get<std::string>());
    EXPECT_TRUE(at::equal(integrate(star), integrate(dash))) << i;
  }
}

}  // namespace
}  // namespace minwm::camera
