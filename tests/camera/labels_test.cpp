// Action labels, the published programs' parsers, paths per video frame, memory retrieval.

#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/camera/action_labels.h"
#include "minwm/camera/compat_pose_string.h"
#include "minwm/camera/frame_actions.h"
#include "minwm/camera/memory.h"
#include "minwm/camera/pose_string.h"
#include "minwm/camera/poses.h"
#include "minwm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace minwm::camera {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;

int64_t label(const Motion& motion, double threshold = kTrainingMoveThreshold,
              bool third_person = false) {
  return action_labels(invert_poses(integrate({motion})), threshold, third_person)[1]
      .item<int64_t>();
}

int64_t key_label(const std::string& key) {
  return label(parse_pose_string(key)[0]);
}

TEST(ActionLabels, OfSingleKeys) {
  EXPECT_EQ(key_label("w"), 9);
  EXPECT_EQ(key_label("s"), 18);
  EXPECT_EQ(key_label("d"), 27);
  EXPECT_EQ(key_label("a"), 36);
  EXPECT_EQ(key_label("l"), 1);
  EXPECT_EQ(key_label("j"), 2);
  EXPECT_EQ(key_label("i"), 3);
  EXPECT_EQ(key_label("k"), 4);
  EXPECT_EQ(key_label("u"), 0) << "vertical motion has no class";
  EXPECT_EQ(key_label("."), 0);
}

TEST(ActionLabels, AllCompoundMotionsHaveTheirClass) {
  std::vector<int64_t> seen;
  for (const double forward : {-kStep, 0., kStep}) {
    for (const double right : {-kStep, 0., kStep}) {
      for (const double yaw : {-kRotationStep, 0., kRotationStep}) {
        for (const double pitch : {-kRotationStep, 0., kRotationStep}) {
          const int64_t found =
              label({.forward = forward, .right = right, .yaw = yaw, .pitch = pitch});
          const auto sign = [](double v) { return v > 0 ? 1 : v < 0 ? -1 : 0; };
          EXPECT_EQ(found % 9, motion_class(sign(yaw), sign(pitch)));
          seen.push_back(found);
        }
      }
    }
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()) - seen.begin(), 81);
}

TEST(ActionLabels, ThresholdsAreStrict) {
  EXPECT_EQ(label({.forward = 0.009}), 0);
  EXPECT_EQ(label({.forward = 0.011}), 9);
  EXPECT_EQ(label({.forward = 0.009}, kInferenceMoveThreshold), 9);
  constexpr double kDegree = 0.017453292519943295;
  EXPECT_EQ(label({.yaw = 0.049 * kDegree}), 0);
  EXPECT_EQ(label({.yaw = 0.051 * kDegree}), 1);
  EXPECT_EQ(label({.pitch = -0.051 * kDegree}), 4);
  const auto sideways = [](double degrees) {
    return label({.forward = std::cos(degrees * kDegree), .right = std::sin(degrees * kDegree)});
  };
  EXPECT_EQ(sideways(29), 9);
  EXPECT_EQ(sideways(31), 45);
  EXPECT_EQ(sideways(59), 45);
  EXPECT_EQ(sideways(61), 27);
}

TEST(ActionLabels, InThirdPersonTurningHidesMoving) {
  EXPECT_EQ(label({.forward = kStep, .yaw = kRotationStep}, kInferenceMoveThreshold, true), 1);
  EXPECT_EQ(label({.forward = kStep}, kInferenceMoveThreshold, true), 9);
}

TEST(ActionLabels, DependOnRelativeMotionOnlyAndStartWithZero) {
  const at::Tensor views = invert_poses(integrate(parse_pose_string("w+l*5,a*3,i*4")));
  const at::Tensor moved = at::matmul(views, integrate(parse_pose_string("j*20,u*9"))[-1]);
  EXPECT_TRUE(at::equal(action_labels(views), action_labels(moved)));
  EXPECT_EQ(action_labels(views.slice(0, 3))[0].item<int64_t>(), 0);
  EXPECT_EQ(action_labels(views.slice(0, 0, 1)).numel(), 1);
}

TEST(StarString, IsAsStrictAsThePublishedProgram) {
  const auto wan = [](const std::string& text) {
    return error_of([&] { parse_star_string(text, StarProgram::kWan); });
  };
  EXPECT_NO_THROW(parse_star_string(" w*3 , d*02 ", StarProgram::kWan));
  for (const char* bad : {"", "w*3,", "w*3,,d*2", "W*3", "w", "w-3", "w *3", "w* 3", "w*-1",
                          "w*1.5", "w*3;d*2", "w*", "*3"}) {
    EXPECT_THAT(wan(bad), HasSubstr("not key*count")) << bad;
  }
  EXPECT_THAT(wan("w*1,left*3"), HasSubstr("unknown key 'left' in piece 'left*3'"));
  EXPECT_THAT(wan("w*99999999999999999999"), HasSubstr("too large"));
}

TEST(StarString, TheHyProgramKnowsMoreKeysButNotUp) {
  const auto hy = [](const std::string& text) { return parse_star_string(text, StarProgram::kHy); };
  EXPECT_EQ(hy("left*2")[1].yaw, -kRotationStep);
  EXPECT_EQ(hy("up*1")[0].pitch, kRotationStep);
  EXPECT_EQ(hy("u*2").size(), 2U);
  EXPECT_EQ(hy("u*2")[0].up, 0);
  EXPECT_EQ(parse_star_string("u*2", StarProgram::kWan)[0].up, kStep);
}

TEST(DashString, TheThreeProgramsDifferOnBadInput) {
  const auto steps = [](const std::string& text, DashProgram program) -> int64_t {
    try {
      return static_cast<int64_t>(parse_dash_string(text, program).size());
    } catch (const Error&) {
      return -1;
    }
  };
  const auto all = [&](const std::string& text) {
    return std::vector<int64_t>{steps(text, DashProgram::kWorldPlay),
                                steps(text, DashProgram::kWanLmdb),
                                steps(text, DashProgram::kHyPreencoder)};
  };
  EXPECT_THAT(all("right-8, a-11"), ElementsAre(19, 19, 19));
  EXPECT_THAT(all("w-2.9"), ElementsAre(2, 2, 2));
  EXPECT_THAT(all("w-0.5,d - 1e1,"), ElementsAre(10, 10, 10));
  EXPECT_THAT(all("w-1_0, d-+2"), ElementsAre(12, 12, 12));
  EXPECT_THAT(all(""), ElementsAre(0, 0, 0));
  EXPECT_THAT(all("w-3-2"), ElementsAre(-1, 3, -1));
  EXPECT_THAT(all("x-0"), ElementsAre(-1, 0, -1));
  for (const char* bad :
       {"w--3", "w*3", "w", "W-3", "j-3", "w-inf", "w-nan", "w-", "w-3x", "w-0x2", "w-_1"}) {
    EXPECT_THAT(all(bad), ElementsAre(-1, -1, -1)) << bad;
  }
}

TEST(DirectorySuffix, DiffersForDecimalsAndUpperCase) {
  const auto both = [](const std::string& text) {
    return directory_suffix(text, DashProgram::kWanLmdb) + " " +
           directory_suffix(text, DashProgram::kHyPreencoder);
  };
  EXPECT_EQ(both("right-8, a-11"), "right8a11 right8a11");
  EXPECT_EQ(both("w-2.9"), "w29 w2.9");
  EXPECT_EQ(both("W-3,\td-1"), "w3d1 W3d1");
}

TEST(FrameActions, AreQuartersOfALatentStep) {
  const at::Tensor poses = latent_poses(integrate_frame_actions("WWWWLLLLDDDD"));
  EXPECT_TRUE(at::allclose(poses, integrate(parse_pose_string("w,l,d")), 0, 1e-12));
  // Upstream's K tilts up and I down.
  EXPECT_TRUE(at::allclose(latent_poses(integrate_frame_actions("KKKKIIII")),
                           integrate(parse_pose_string("i,k")), 0, 1e-12));
  EXPECT_THAT(error_of([] { integrate_frame_actions("WWx"); }),
              HasSubstr("unknown letter 'x' at position 3"));
}

TEST(RandomActionBlocks, FillTheClipWithoutTurningStraightBack) {
  uint64_t state = 1;
  const auto uniform = [&] {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(state >> 11) * 0x1p-53;
  };
  for (int path = 0; path < 500; ++path) {
    const int64_t frames = 1 + 4 * (1 + path % 40);
    const auto blocks = random_action_blocks(frames, uniform);
    EXPECT_EQ(static_cast<int64_t>(to_action_string(blocks).size()), frames - 1);
    for (size_t i = 1; i < blocks.size(); ++i) {
      const std::string pair = {blocks[i - 1].action, blocks[i].action};
      EXPECT_NE(pair[0], pair[1]);
      EXPECT_NE(pair, "WS");
      EXPECT_NE(pair, "SW");
      EXPECT_GE(blocks[i].frames, 16);
    }
  }
  EXPECT_EQ(to_dash_string({{'J', 32}, {'K', 16}}), "left-8, down-4");
  EXPECT_THROW(random_action_blocks(1, uniform), Error);
}

TEST(ViewOverlap, FallsAsTheCameraTurnsAway) {
  const at::Tensor points = points_in_ball(4000, 8, {.seed = 1, .purpose = "test"});
  const at::Tensor views = invert_poses(integrate(parse_pose_string("l*60")));
  const auto overlap = [&](int64_t turn) { return view_overlap(views[0], views[turn], points); };
  EXPECT_EQ(overlap(0), 1);
  EXPECT_NEAR(overlap(10), 0.5, 0.06) << "half of a 60 degree view";
  EXPECT_EQ(overlap(20), 0);
  EXPECT_EQ(view_overlap(views[0], views[0], at::zeros({0, 3})), 0) << "nothing to see";
}

TEST(ViewOverlap, CountsAnglesAcrossTheHalfTurn) {
  // A wide view ahead shares its two sides with the same view behind, left and right alike.
  const at::Tensor points = points_in_ball(4000, 8, {.seed = 1, .purpose = "test"});
  const at::Tensor views = invert_poses(integrate(parse_pose_string("l*60")));
  MemoryOptions wide;
  wide.view_width = 300;
  EXPECT_NEAR(view_overlap(views[0], views[60], points, wide), 0.8, 0.04)
      << "240 of 300 degrees; 120 without the wrap";
}

TEST(SelectMemory, PrefersTheChunksThatSawTheSamePlaces) {
  const at::Tensor points = points_in_ball(2000, 8, {.seed = 1, .purpose = "test"});
  // Away for 24 frames and back: at frame 48 the view is that of frame 0.
  const at::Tensor views = invert_poses(integrate(parse_pose_string("l*24,j*27")));
  const auto picked = select_memory(views, 48, points);
  ASSERT_EQ(picked.size(), 20U);
  EXPECT_TRUE(std::is_sorted(picked.begin(), picked.end()));
  EXPECT_THAT(std::vector<int64_t>(picked.begin(), picked.begin() + 8),
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(picked[8], 36);
  EXPECT_EQ(select_memory(views, 20, points).size(), 20U) << "everything while it fits";
  EXPECT_THAT(error_of([&] { select_memory(views, 99, points); }), HasSubstr("frame 99 of 52"));
  MemoryOptions small;
  small.memory_frames = small.temporal_context = 2;
  EXPECT_THAT(select_memory(views, 48, points, small), ElementsAre(0, 1, 2, 3, 46, 47))
      << "the first chunk and the context always";
}

TEST(PointsInBall, AreUniformInVolume) {
  const at::Tensor radius = points_in_ball(20000, 8, {.seed = 1, .purpose = "test"}).norm(2, {1});
  EXPECT_LE(radius.max().item<double>(), 8.000001);
  EXPECT_NEAR((radius < 4).to(at::kDouble).mean().item<double>(), 0.125, 0.01);
}

}  // namespace
}  // namespace minwm::camera
