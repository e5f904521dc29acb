// The HY line as a user trains it: every stage stopped and continued, first frames, actions and
// stream switches, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/hdf5.h"
#include "tests/apps/mesh_runs.h"
#include "tests/apps/small_hy_chain.h"

namespace minwm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::metrics;
using testing::Outcome;
using testing::run_minwm;
using testing::small_hy_chain;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

const std::string kConstantRate =
    " --optimizer.warmup 0 --optimizer.schedule constant --optimizer.decay_fraction 0";

class HyStages : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Chain, HyStages, testing::every_stage(), testing::stage_name);

TEST_P(HyStages, AStoppedRunContinuesBitForBit) {
  const auto& chain = small_hy_chain();
  const TemporaryFolder folder;
  const std::string whole = (folder / "whole").string(), legs = (folder / "legs").string();
  const std::string options =
      kConstantRate + (GetParam() == "ode" ? "" : " --condition.first_frame 0.5");
  for (const auto& [run, steps] :
       std::vector<std::pair<std::string, int>>{{whole, 4}, {legs, 2}, {legs, 4}}) {
    const Outcome outcome = run_minwm(chain.train(GetParam(), run, steps) + options, 2);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  EXPECT_EQ(metrics(whole).size(), 4U);
  EXPECT_EQ(testing::curve_difference(legs, whole, "loss"), 0);
  testing::expect_same_state(legs, whole, 4);
}

/// The loss of a run's last step.
double last_loss(const std::string& call) {
  const TemporaryFolder folder;
  const std::string run = (folder / "run").string();
  const Outcome outcome = run_minwm(call + " --output.dir " + run);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return metrics(run).back().value("loss", 0.0);
}

TEST(HyChain, GivingFirstFramesOrNotIsADifferentTask) {
  const auto& chain = small_hy_chain();
  for (const char* stage : {"bidirectional", "teacher-forcing", "consistency", "dmd"}) {
    // DMD's first step sees scores that still agree.
    const std::string call = chain.train(stage, "unused", std::string(stage) == "dmd" ? 2 : 1);
    EXPECT_NE(last_loss(call), last_loss(call + " --condition.first_frame 0")) << stage;
  }
}

TEST(HyChain, StreamSwitchesAreRecordedFollowedAndTold) {
  const auto& chain = small_hy_chain();
  const TemporaryFolder folder;
  const std::string out = (folder / "run").string(), call = chain.train("dmd", out, 2);
  const double dual = last_loss(chain.train("dmd", "unused", 2));
  const Outcome outcome =
      run_minwm(call + " --model.camera_cache rope_only --model.context_action true");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("was trained with model.camera_cache = dual, this run has "
                                     "rope_only"));
  EXPECT_THAT(outcome.err, HasSubstr("model.context_action = false, this run has true"));
  EXPECT_NE(metrics(out).back().value("loss", 0.0), dual);
  const json info = json::parse(testing::state_of(out, 2).read_string("/", "info"));
  EXPECT_EQ(info["camera_cache"], "rope_only");
  EXPECT_EQ(info["context_action"], true);
  const Outcome resumed = run_minwm(chain.train("dmd", out, 4));
  EXPECT_EQ(resumed.code, kExitBadInput);
  EXPECT_THAT(resumed.err, HasSubstr("was trained with model.camera_cache = rope_only, "
                                     "model.context_action = true, condition.first_frame = 1, this "
                                     "run has model.camera_cache = dual"));
}

TEST(HyChain, ARollingWindowIsToldTheActionsOfAllItsChunks) {
  const auto& chain = small_hy_chain();
  const TemporaryFolder folder;
  const Outcome outcome = run_minwm(chain.train("dmd", (folder / "run").string(), 2) +
                                    " --dmd.rolling 1 --rollout.step_list 1000,500");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(HyChain, AModelWithoutCamerasIsJudgedByItsPredictionsAlone) {
  const auto& chain = small_hy_chain();
  const TemporaryFolder folder;
  const std::string out = (folder / "run").string();
  const std::string judged = " --eval.clips 2 --data.eval_store " + chain.path("clips.h5");
  const Outcome outcome = run_minwm(fmt::format(
      "train --config {}/recipes/hy-tiny-ti2v/bidirectional.ini --model "
      "hy-tiny-ti2v@1 --data.codec {} --data.stores {} --train.steps 1 "
      "--train.global_batch 2 --output.dir {}{}",
      MINWM_SOURCE_DIR, chain.path("codec.safetensors"), chain.path("clips.h5"), out, judged));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("reads no cameras"));
  const json line = metrics(out).at(0);
  EXPECT_TRUE(line.contains("gap_right"));
  EXPECT_FALSE(line.contains("camera_gap"));
  EXPECT_FALSE(line.contains("gap_wrong"));
}

struct Refusal {
  std::string name, arguments;
  std::vector<std::string> says;
};

TEST(HyChain, WhatDoesNotFitIsRefusedWithWhatFits) {
  const auto& chain = small_hy_chain();
  const TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  auto with = [&](const std::string& stage, const std::string& more) {
    return chain.train(stage, out, 2) + " " + more;
  };
  const std::string clips = " --data.stores " + chain.path("clips.h5") + " --output.dir " + out;
  const std::string pairs = fmt::format(
      "data ode-pairs --checkpoint {} --stores {} --store {} --steps 8",
      chain.path("teacher-forcing"), chain.path("clips.h5"), (folder / "pairs.h5").string());
  const std::vector<Refusal> refusals = {
      {"a first frame clean in the sequence",
       with("bidirectional", "--bidirectional.clean_first 0.5"),
       {"bidirectional.clean_first 0.5", "hy-tiny-worldplay@2", "condition.first_frame"}},
      {"the same in rollouts",
       with("dmd", "--dmd.clean_first 0.5"),
       {"dmd.clean_first 0.5", "condition.first_frame"}},
      {"a first frame through the conditions of Wan",
       "train --stage teacher-forcing --condition.first_frame 0.5" + clips,
       {"condition.first_frame 0.5", "wan-tiny", "teacher_forcing.clean_first"}},
      {"no probability", with("dmd", "--condition.first_frame 2"), {"condition.first_frame 2"}},
      {"trajectories of clips that gave their first frame, and clips that do not",
       with("ode", "--condition.first_frame 0.5"),
       {"condition.first_frame 0.5", "expected 1 or 0"}},
      {"trajectories of another task",
       with("ode", "--condition.first_frame 0"),
       {"pairs.h5", "--first_frame 1"}},
      {"a teacher given a clean first frame",
       pairs + " --clean_first 0.5",
       {"--clean_first 0.5", "--first_frame"}},
      {"dropped text without the empty prompt",
       "train --model hy-8b@1 --stage bidirectional --bidirectional.text_dropout 0.1" + clips,
       {"--data.negative is missing", "bidirectional.text_dropout", "hy-8b@1"}},
      {"a switch that Wan has not",
       "train --stage bidirectional --model.camera_cache rope_only" + clips,
       {"camera_cache"}},
  };
  for (const auto& refusal : refusals) {
    SCOPED_TRACE(refusal.name);
    const Outcome outcome = run_minwm(refusal.arguments);
    EXPECT_EQ(outcome.code, kExitBadInput) << outcome.err;
    for (const auto& text : refusal.says) {
      EXPECT_THAT(outcome.err, HasSubstr(text));
    }
    EXPECT_FALSE(fs::exists(fs::path(out) / "checkpoints"));
    EXPECT_FALSE(fs::exists(folder / "pairs.h5"));
  }
}

TEST(HyChain, TheProductionRecipesAreWellFormed) {
  int recipes = 0;
  for (const char* line : {"hy-8b", "hy-8b-ti2v", "hy-8b-worldplay"}) {
    for (const char* stage : {"bidirectional", "teacher-forcing", "ode", "consistency", "dmd"}) {
      const Outcome outcome =
          run_minwm(fmt::format("train --config {}/recipes/{}/{}.ini --parallel.shard "
                                "1 --parallel.context 1 --parallel.replicate 1 --dry-run",
                                MINWM_SOURCE_DIR, line, stage));
      EXPECT_EQ(outcome.code, 0) << line << " " << stage << ": " << outcome.err;
      EXPECT_THAT(outcome.out, HasSubstr(std::string("model       ") + line + ","));
      ++recipes;
    }
  }
  EXPECT_EQ(recipes, 15);
}

}  // namespace
}  // namespace minwm
