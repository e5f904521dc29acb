#include "minwm/camera/re10k.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/core/error.h"

namespace minwm::camera {
namespace {

using ::testing::HasSubstr;

const std::string kUrl = "https://example.org/watch?v=x";
const std::string kFirst = "100 0.5 0.9 0.5 0.4 0 0 1 0 0 0.25 0 1 0 0 0 0 1 2";
const std::string kSecond = "9007199254740993 0.5 0.9 0.5 0.4 0 0 1 0 0 0 0 1 0 0 0 0 1 1.5";

std::string message(const std::string& text) {
  try {
    parse_re10k(text, "clip.txt");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string with_word(size_t index, const std::string& word) {
  std::string out;
  size_t at = 0;
  std::istringstream words(kSecond);
  for (std::string each; words >> each; ++at) {
    out += (at == 0 ? "" : " ") + (at == index ? word : each);
  }
  return kUrl + "\n" + kFirst + "\n" + out + "\n";
}

TEST(Re10k, ReadsPosesIntrinsicsAndTimes) {
  const Re10kClip clip = parse_re10k(kUrl + "\n" + kFirst + "\n" + kSecond + "\n", "clip.txt");
  EXPECT_EQ(clip.url, kUrl);
  EXPECT_EQ(clip.timestamps_us[1].item<int64_t>(), 9007199254740993) << "more digits than a double";
  EXPECT_TRUE(at::allclose(clip.intrinsics[1], at::tensor({0.5, 0.9, 0.5, 0.4}, at::kDouble)));
  EXPECT_EQ(clip.world_to_camera[0][0][3].item<double>(), 0.25);
  const Cameras cameras = clip.cameras();
  EXPECT_TRUE(at::equal(cameras.world_to_camera[0][0], at::eye(4)));
  EXPECT_FLOAT_EQ(cameras.world_to_camera[0][1][2][3].item<float>(), -0.5F);
  EXPECT_FLOAT_EQ(cameras.intrinsics[0][1][1][2].item<float>(), 0.4F) << "the centre as given";
}

TEST(Re10k, AcceptsAnyBlanksAndLineEnds) {
  std::string tabs = kFirst;
  std::replace(tabs.begin(), tabs.end(), ' ', '\t');
  const std::string text = kUrl + " \r\n" + tabs + "\r\n  " + kSecond + "  \r\n \n\n";
  EXPECT_EQ(parse_re10k(text, "clip.txt").world_to_camera.size(0), 2);
  EXPECT_EQ(parse_re10k(kUrl + "\n" + kFirst, "clip.txt").world_to_camera.size(0), 1);
}

TEST(Re10k, ErrorsNameTheLine) {
  EXPECT_THAT(message(""), HasSubstr("clip.txt: the file is empty"));
  EXPECT_THAT(message("\n \n"), HasSubstr("the file is empty"));
  EXPECT_THAT(message(kUrl + "\n"), HasSubstr("clip.txt: no pose after the URL"));
  EXPECT_THAT(message(kFirst + "\n" + kSecond),
              HasSubstr("clip.txt line 1: expected the source URL, got 19 words"));
  EXPECT_THAT(message(kUrl + "\n" + kFirst + "\n\n" + kSecond),
              HasSubstr("clip.txt line 3: 0 numbers, expected 19"));
  EXPECT_THAT(message(kUrl + "\n" + kFirst + " 1\n"), HasSubstr("line 2: 20 numbers"));
  EXPECT_THAT(message(kUrl + "\n" + kFirst + "\n" + kSecond.substr(0, 40)),
              HasSubstr("line 3: 9 numbers"));
  EXPECT_THAT(message(with_word(0, "1.5")), HasSubstr("line 3: the timestamp '1.5'"));
  EXPECT_THAT(message(with_word(9, "0x1")), HasSubstr("line 3: '0x1' is not a number"));
  EXPECT_THAT(message(with_word(9, "nan")), HasSubstr("line 3: 'nan' is not a number"));
  EXPECT_THAT(message(with_word(1, "0")), HasSubstr("line 3: focal lengths 0 0.9"));
  EXPECT_THAT(message(with_word(7, "0.5")), HasSubstr("line 3: pose 0 is not a rotation"));
  EXPECT_EQ(message(with_word(9, "0.0")), "accepted");
}

TEST(RelativePoses, PutTheFirstCameraWhereAsked) {
  const at::Tensor views = invert_poses(integrate(parse_pose_string("l*9,w*30,i*4")).slice(0, 12));
  const at::Tensor origin = relative_poses(views, FirstCamera::kOrigin);
  EXPECT_TRUE(at::equal(origin[0], at::eye(4, at::kDouble)));
  const at::Tensor distant = relative_poses(views, FirstCamera::kKeepDistance);
  EXPECT_NEAR(distant[0][1][3].item<double>(), -0.24, 1e-9);
  // The motion between two frames is the same whatever the first camera.
  const auto motion = [](const at::Tensor& c2w) {
    return at::matmul(at::linalg_inv(c2w[4]), c2w[9]);
  };
  EXPECT_TRUE(at::allclose(motion(origin), motion(distant), 0, 1e-12));
  EXPECT_TRUE(at::allclose(motion(origin), motion(invert_poses(views)), 0, 1e-12));
}

TEST(FitIntrinsics, FollowTheCutSide) {
  const at::Tensor k = at::tensor({0.5, 0.8, 0.5, 0.5}, at::kDouble).reshape({1, 4});
  const at::Tensor wide = fit_intrinsics(k, 2.0, 100, 100);  // half of the width is cut off
  EXPECT_NEAR(wide[0][0].item<double>(), 1.0, 1e-12);
  EXPECT_NEAR(wide[0][1].item<double>(), 0.8, 1e-12);
  const at::Tensor tall = fit_intrinsics(k, 0.5, 100, 100);
  EXPECT_NEAR(tall[0][0].item<double>(), 0.5, 1e-12);
  EXPECT_NEAR(tall[0][1].item<double>(), 1.6, 1e-12);
  EXPECT_TRUE(at::equal(fit_intrinsics(k, 16. / 9, 1920, 1080), k));
}

TEST(PlueckerRays, MeetTheCameraCentreAndPointForward) {
  const at::Tensor poses = integrate(parse_pose_string("w+l*3,dn*2")).slice(0, 1, 4);
  const at::Tensor k = at::tensor({0.5, 0.9, 0.5, 0.5}, at::kDouble).reshape({1, 4}).repeat({3, 1});
  const at::Tensor rays = pluecker_rays(poses, k, 6, 4);  // N = 3: where upstream's axis was wrong
  ASSERT_EQ(rays.sizes(), (std::vector<int64_t>{3, 6, 4, 6}));
  const at::Tensor moment = rays.narrow(1, 0, 3), direction = rays.narrow(1, 3, 3);
  EXPECT_LT((direction.norm(2, {1}) - 1).abs().max().item<double>(), 1e-6);
  const at::Tensor center = poses.narrow(1, 0, 3).select(2, 3).reshape({3, 3, 1, 1}).to(at::kFloat);
  const at::Tensor expected = at::cross(center.expand_as(direction), direction, 1);
  EXPECT_LT((moment - expected).abs().max().item<double>(), 1e-6);
  // The mean of the four middle pixels looks along the camera's z axis.
  const at::Tensor middle = direction[2].slice(1, 1, 3).slice(2, 2, 4).mean({1, 2});
  const at::Tensor axis = poses[2].select(1, 2).narrow(0, 0, 3).to(at::kFloat);
  EXPECT_LT((middle / middle.norm() - axis).abs().max().item<double>(), 1e-5);
}

TEST(Re10k, ReadsTheSharedClips) {
  const std::filesystem::path folder = MINWM_SHARED_DATA "/data/re10k/poses";
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << "shared data is not here";
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_EQ(read_re10k(entry.path()).cameras().world_to_camera.size(1), 16) << entry.path();
  }
}

}  // namespace
}  // namespace minwm::camera
