// Camera paths of training clips.

#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/camera/pose_string.h"
#include "minwm/camera/rigid.h"
#include "minwm/core/error.h"
#include "minwm/data/world.h"

namespace minwm::data {
namespace {

constexpr int64_t kSteps = 11;
const std::string kKeys = "wsadjlik";

struct Segment {
  char key;
  int64_t length;
};

std::vector<Segment> segments_of(const std::string& text) {
  std::vector<Segment> segments;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    segments.push_back({text[at], std::stoll(text.substr(at + 2, end - at - 2))});
    at = end + 1;
  }
  return segments;
}

size_t reverse_of(size_t key) {
  return key ^ 1;
}

TEST(RandomTrajectory, KeepsTheRulesOfCutsKeysAndPitch) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    const std::string text = random_trajectory(seed, static_cast<int64_t>(seed % 3), kSteps);
    const std::vector<Segment> segments = segments_of(text);
    ASSERT_LE(segments.size(), 3U) << text;
    int64_t at = 0;
    int64_t pitch = 0;
    size_t previous = kKeys.size();
    for (const Segment& segment : segments) {
      ASSERT_TRUE(at == 0 || (at >= 2 && at <= kSteps - 2)) << text;
      at += segment.length;
      if (segment.key == '.') {
        ASSERT_EQ(segments.size(), 1U);
        continue;
      }
      const size_t key = kKeys.find(segment.key);
      ASSERT_NE(key, std::string::npos) << text;
      ASSERT_TRUE(previous == kKeys.size() || (key != previous && key != reverse_of(previous)))
          << text;
      pitch += segment.length * (segment.key == 'i' ? 1 : segment.key == 'k' ? -1 : 0);
      ASSERT_LE(std::abs(pitch), 10) << text;
      previous = key;
    }
    ASSERT_EQ(at, kSteps) << text;
    ASSERT_EQ(camera::parse_pose_string(text).size(), static_cast<size_t>(kSteps));
  }
}

TEST(RandomTrajectory, DrawsStillsSegmentsAndKeysInTheirShares) {
  constexpr int kCount = 8000;
  std::map<size_t, int> counts;
  std::map<char, int> first_keys;
  int still = 0;
  for (int seed = 0; seed < kCount; ++seed) {
    const auto segments = segments_of(random_trajectory(static_cast<uint64_t>(seed), 0, kSteps));
    if (segments[0].key == '.') {
      ++still;
    } else {
      ++counts[segments.size()];
      ++first_keys[segments[0].key];
    }
  }
  EXPECT_NEAR(still, .03 * kCount, 60);  // four standard deviations
  EXPECT_NEAR(counts[1], .97 * .25 * kCount, 160);
  EXPECT_NEAR(counts[2], .97 * .50 * kCount, 180);
  EXPECT_NEAR(counts[3], .97 * .25 * kCount, 160);
  for (const char key : std::string("wsadjl")) {
    // i and k are redrawn where 11 steps would tilt too far: the other six share what they lose.
    EXPECT_NEAR(first_keys[key], (.75 / 8 + .25 / 6) * .97 * kCount, 130) << key;
  }
}

TEST(RandomTrajectory, IsAFunctionOfSeedAndIndex) {
  EXPECT_EQ(random_trajectory(5, 1, kSteps), random_trajectory(5, 1, kSteps));
  int differ = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    differ += random_trajectory(seed, 0, kSteps) != random_trajectory(seed, 1, kSteps) ? 1 : 0;
  }
  EXPECT_GE(differ, 45);
}

TEST(RandomTrajectory, FitsAnyNumberOfSteps) {
  for (int64_t steps = 1; steps <= 40; ++steps) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      EXPECT_EQ(camera::parse_pose_string(random_trajectory(seed, 0, steps)).size(),
                static_cast<size_t>(steps));
    }
  }
  EXPECT_THROW(random_trajectory(1, 0, 0), Error);
  EXPECT_THROW(random_trajectory(1, -1, 5), Error);
}

TEST(InterpolateLatentPoses, WalksAndTurnsInQuartersAndEndsOnEveryLatentPose) {
  const at::Tensor latents = camera::integrate(camera::parse_pose_string("w*1,l*1,i*1"));
  const at::Tensor frames = interpolate_latent_poses(latents);
  ASSERT_EQ(frames.sizes(), (std::vector<int64_t>{13, 4, 4}));
  const std::vector<camera::Rigid> poses = camera::to_rigid(frames);
  for (size_t f = 0; f <= 4; ++f) {
    const double fraction = static_cast<double>(f) / 4;
    EXPECT_NEAR(poses[f].translation[2], fraction * camera::kStep, 1e-12);
    EXPECT_NEAR(poses[4 + f].angle(), fraction * camera::kRotationStep, 1e-12);
    const camera::Rigid tilt = camera::inverse(poses[8]) * poses[8 + f];
    EXPECT_NEAR(tilt.angle(), fraction * camera::kRotationStep, 1e-12);
  }
  for (int64_t k = 0; k < 4; ++k) {
    EXPECT_TRUE(frames[4 * k].equal(latents[k].to(at::kDouble)));
  }
}

TEST(InterpolateLatentPoses, LeavesOnePoseAndRefusesOtherShapes) {
  const at::Tensor one = at::eye(4, at::kDouble).unsqueeze(0);
  EXPECT_TRUE(interpolate_latent_poses(one).equal(one));
  EXPECT_THROW(interpolate_latent_poses(at::zeros({3, 4, 4})), Error);
  EXPECT_THROW(interpolate_latent_poses(at::zeros({3, 7})), Error);
}

}  // namespace
}  // namespace minwm::data
