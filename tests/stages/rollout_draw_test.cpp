#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/options.h"
#include "minwm/stages/self_rollout.h"
#include "tests/stages/small_wan.h"

namespace minwm::stages {
namespace {

using namespace testing;
using ::testing::Each;
using ::testing::ElementsAre;

class RolloutDraw : public ::testing::Test {
 protected:
  RolloutDraw() { options.chunk_frames = 2; }
  RolloutDraws draw(int64_t step, const std::vector<int64_t>& samples = {0, 1},
                    const std::string& purpose = "generator", int64_t micro_batch = 0) const {
    return draw_rollout(small_batch(12, samples), {9, step, micro_batch}, purpose, options);
  }
  RolloutOptions options;
};

TEST_F(RolloutDraw, RanksShareDecisionsAndDrawTheirOwnNoise) {
  options.same_exit = false;
  options.minimum_frames = 4;
  for (int64_t step = 0; step < 8; ++step) {
    const auto all = draw(step, {0, 1, 2, 3}), rank = draw(step, {2, 3}, "generator", 1);
    EXPECT_EQ(all.exit_step, rank.exit_step);
    EXPECT_TRUE(at::equal(all.noise.narrow(0, 2, 2), rank.noise));
    EXPECT_TRUE(at::equal(all.renoise(1, 2).narrow(0, 2, 2), rank.renoise(1, 2)));
    EXPECT_TRUE(at::equal(all.context_noise(1).narrow(0, 2, 2), rank.context_noise(1)));
  }
}

TEST_F(RolloutDraw, NothingIsDrawnTwice) {
  const auto draws = draw(0), other = draw(1), critic = draw(0, {0, 1}, "critic");
  const std::vector<at::Tensor> noises = {
      draws.noise.narrow(1, 0, 2), draws.noise.narrow(1, 2, 2), draws.renoise(0, 0),
      draws.renoise(0, 1),         draws.renoise(1, 0),         draws.context_noise(0),
      draws.context_noise(1),      other.renoise(0, 0),         critic.renoise(0, 0)};
  for (size_t i = 0; i < noises.size(); ++i) {
    EXPECT_FALSE(at::equal(noises[i][0], noises[i][1]));
    for (size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(at::equal(noises[i], noises[j]));
    }
  }
}

TEST_F(RolloutDraw, ExitsAreOneForAllChunksOrOneEachAndReachEveryStep) {
  std::set<int64_t> shared, single;
  bool differ = false;
  for (int64_t step = 0; step < 40; ++step) {
    options.same_exit = true;
    const auto one = draw(step).exit_step;
    EXPECT_THAT(one, Each(one.front()));
    shared.insert(one.front());
    options.same_exit = false;
    const auto each = draw(step).exit_step;
    single.insert(each.begin(), each.end());
    differ = differ || std::set<int64_t>(each.begin(), each.end()).size() > 1;
  }
  EXPECT_THAT(shared, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(single, ElementsAre(0, 1, 2, 3));
  EXPECT_TRUE(differ);
}

TEST_F(RolloutDraw, TheLastStepCanBeForced) {
  options.last_step_only = true;
  EXPECT_THAT(draw(0).exit_step, Each(3));
  options.last_step_only = false;
  options.mode = "full";
  options.solver = "euler";
  EXPECT_THAT(draw(0).exit_step, Each(3));
}

TEST_F(RolloutDraw, AFirstChunkWithItsOwnStepsHasItsOwnExit) {
  options.step_list = {1000};
  options.first_chunk_step_list = {1000, 750, 500, 250};
  std::set<int64_t> first;
  for (int64_t step = 0; step < 40; ++step) {
    const auto exits = draw(step).exit_step;
    first.insert(exits.front());
    EXPECT_EQ(exits.at(1), 0);
  }
  EXPECT_THAT(first, ElementsAre(0, 1, 2, 3));
}

TEST_F(RolloutDraw, TheLengthIsDrawnFromTheMinimumToTheWholeClip) {
  EXPECT_EQ(draw(0).noise.size(1), 12);
  options.minimum_frames = 7;  // 3 chunks
  std::set<int64_t> lengths;
  for (int64_t step = 0; step < 60; ++step) {
    const auto draws = draw(step);
    lengths.insert(draws.noise.size(1));
    EXPECT_EQ(static_cast<int64_t>(draws.exit_step.size()) * 2, draws.noise.size(1));
  }
  EXPECT_THAT(lengths, ElementsAre(6, 8, 10, 12));
}

TEST(RolloutTimesteps, AreShifted) {
  const auto t = rollout_timesteps({1000, 750, 500, 250}, 5);
  EXPECT_THAT(t, ElementsAre(1000, 937.5, ::testing::DoubleNear(833.3333, 1e-3), 625));
}

TEST(RolloutOptions, AreReadFromTheirSection) {
  RolloutOptions rollout;
  Options options("test", "");
  rollout.declare(options);
  const char* arguments[] = {"test", "--rollout.step_list", "1000,500", "--rollout.mode", "full"};
  ASSERT_TRUE(options.parse(5, arguments));
  EXPECT_THAT(rollout.step_list, ElementsAre(1000, 500));
  EXPECT_EQ(rollout.mode, "full");
}

}  // namespace
}  // namespace minwm::stages
