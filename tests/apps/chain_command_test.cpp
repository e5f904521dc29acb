// Every stage of the chain as a user runs it, with ranks: killed and continued, started from the
// wrong thing, sampled in the wrong way.

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/hdf5.h"
#include "tests/apps/kill.h"
#include "tests/apps/small_chain.h"

namespace minwm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::metrics;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallChain;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

constexpr int kSteps = 7;

class EveryStage : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Chain, EveryStage, testing::every_stage(), testing::stage_name);

TEST_P(EveryStage, KilledAtARandomStepContinuesBitForBit) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string through = (folder / "through").string(), killed = (folder / "killed").string();
  const Outcome straight = run_minwm(chain.train(GetParam(), through, kSteps), 2);
  ASSERT_EQ(straight.code, 0) << straight.err;
  std::random_device device;
  const size_t at = 2 + device() % 4;  // lines written when all ranks get kill -9
  const std::string call = fmt::format("{} -n 2 {}/minwm {}", LAUNCHER, MINWM_BINARY_DIR,
                                       chain.train(GetParam(), killed, kSteps));
  ASSERT_TRUE(
      testing::kill_when(testing::words(call), [&] { return metrics(killed).size() >= at; }));
  ASSERT_LT(metrics(killed).size(), static_cast<size_t>(kSteps)) << "it ended before it was killed";
  const Outcome resumed = run_minwm(chain.train(GetParam(), killed, kSteps), 2);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  const auto a = metrics(through), b = metrics(killed);
  ASSERT_EQ(a.size(), static_cast<size_t>(kSteps));
  ASSERT_EQ(b.size(), a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    for (const auto& [key, value] : a[i].items()) {
      if (key != "seconds" && key != "tokens_per_second" && key != "data_wait") {
        EXPECT_EQ(b[i].value(key, json()), value)
            << "step " << i + 1 << ", " << key << ", killed at " << at;
      }
    }
  }
  const auto last = fs::path("checkpoints") / fmt::format("step-{:06}", kSteps) / "state.h5";
  const hdf5::File one(through / last, hdf5::File::Mode::kReadOnly),
      other(killed / last, hdf5::File::Mode::kReadOnly);
  ASSERT_EQ(one.datasets(), other.datasets());
  for (const auto& name : one.datasets()) {
    EXPECT_TRUE(at::equal(one.read(name), other.read(name))) << name;
  }
}

TEST_P(EveryStage, LossesOfOneAndTwoRanksAgree) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string one = (folder / "one").string(), two = (folder / "two").string();
  const std::string adamw = " --optimizer.name adamw --optimizer.lr 1e-4 --train.compute float32";
  ASSERT_EQ(run_minwm(chain.train(GetParam(), one, 6) + adamw).code, 0);
  ASSERT_EQ(run_minwm(chain.train(GetParam(), two, 6) + adamw, 2).code, 0);
  const auto a = metrics(one), b = metrics(two);
  ASSERT_EQ(a.size(), 6U);
  ASSERT_EQ(b.size(), 6U);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(b[i]["loss"].get<double>() / a[i]["loss"].get<double>(), 1, 2e-5)
        << "step " << i + 1;
  }
}

TEST(Chain, TheCheckpointRecordsHowItIsSampled) {
  const auto& chain = SmallChain::get();
  auto info = [&](const std::string& stage, int step) {
    return json::parse(hdf5::File(fs::path(chain.path(stage)) / "checkpoints" /
                                      fmt::format("step-{:06}", step) / "state.h5",
                                  hdf5::File::Mode::kReadOnly)
                           .read_string("/", "info"));
  };
  for (const auto& [stage, step] :
       std::vector<std::pair<std::string, int>>{{"consistency", 2}, {"ode", 2}, {"dmd", 1}}) {
    const json recorded = info(stage, step);
    EXPECT_EQ(recorded["stage"], stage);
    EXPECT_EQ(recorded["model"], "wan-tiny");
    EXPECT_EQ(recorded["sampler"], "renoise");
    EXPECT_EQ(recorded["step_list"], json({1000, 750, 500, 250}));
    EXPECT_EQ(recorded["shift"], 3);
    EXPECT_EQ(recorded["chunk_frames"], 4);
  }
}

TEST(Chain, TheCriticAndItsMomentsAreSaved) {
  const auto& chain = SmallChain::get();
  const hdf5::File file(fs::path(chain.path("dmd")) / "checkpoints/step-000001/state.h5",
                        hdf5::File::Mode::kReadOnly);
  const auto names = file.datasets();
  for (const char* prefix : {"model/param/", "model/ema/", "critic/param/", "optimizer/",
                             "critic/optimizer/", "critic/counters/optimizer_step"}) {
    EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return name.starts_with(prefix);
    })) << prefix;
  }
}

struct Refusal {
  std::string name, arguments;  ///< with {} for the chain's folder
  std::vector<std::string> says;
};

TEST(Chain, WhatDoesNotFitIsRefusedWithTheRightCall) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  auto with = [&](const std::string& stage, const std::string& more) {
    return chain.train(stage, out, kSteps) + " " + more;
  };
  const std::string pose = " --pose w*7 --output " + (folder / "walk.mp4").string();
  const std::vector<Refusal> refusals = {
      {"a student of a student of nothing",
       with("consistency", "--init " + chain.path("bidirectional")),
       {"was trained by stage 'bidirectional'", "'consistency' starts from a teacher-forcing run"}},
      {"a causal score",
       with("dmd", "--dmd.scores " + chain.path("teacher-forcing")),
       {"--dmd.scores", "'teacher-forcing'", "expected a bidirectional run"}},
      {"DMD without scores", with("dmd", "--dmd.scores="), {"--dmd.scores is missing"}},
      {"ODE without trajectories",
       with("ode", "--data.stores " + chain.path("clips.h5")),
       {"clips.h5", "ode-pairs"}},
      {"other levels than the pairs'",
       with("ode", "--ode.step_list 1000,500"),
       {"pairs.h5", "ode.step_list"}},
      {"CD without steps",
       with("consistency", "--sampler.step_list="),
       {"--sampler.step_list is missing"}},
      {"an unknown stage", with("dmd", "--stage consistancy"), {"did you mean consistency?"}},
      {"many steps of a few-step model",
       "generate --checkpoint " + chain.path("dmd") + " --steps 50" + pose,
       {"'dmd'", "1000,750,500,250", "--steps"}},
      {"a many-step solver on a few-step model",
       "generate --checkpoint " + chain.path("ode") + " --solver unipc" + pose,
       {"'ode'", "--solver"}},
      {"all frames at once from a causal model",
       "generate --checkpoint " + chain.path("dmd") + " --mode bidirectional" + pose,
       {"--mode stream"}},
  };
  for (const auto& refusal : refusals) {
    SCOPED_TRACE(refusal.name);
    const Outcome outcome = run_minwm(refusal.arguments);
    EXPECT_EQ(outcome.code, kExitBadInput) << outcome.err;
    for (const auto& text : refusal.says) {
      EXPECT_THAT(outcome.err, HasSubstr(text));
    }
    EXPECT_FALSE(fs::exists(folder / "walk.mp4"));
    EXPECT_FALSE(fs::exists(fs::path(out) / "checkpoints"));
  }
}

TEST(Chain, ARunIsLaidOverItsReference) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string reference = (folder / "reference.jsonl").string();
  ASSERT_EQ(
      run_minwm("train --compare " + chain.path("consistency") + " --write_reference " + reference)
          .code,
      0);
  const Outcome outcome =
      run_minwm("train --compare " + chain.path("consistency") + " --reference " + reference);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("reference"));
  EXPECT_TRUE(fs::exists(fs::path(chain.path("consistency")) / "compare.html"));
}

TEST(Chain, ProbesShowWhatTheModelGenerates) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string out = (folder / "run").string();
  const Outcome outcome = run_minwm(
      chain.train("dmd", out, 2) + " --probe.every 2 --probe.worlds 1 --probe.paths w,l", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GT(fs::file_size(fs::path(out) / "probes" / "step-000002.png"), 1000U);
  EXPECT_GT(fs::file_size(fs::path(out) / "probes" / "step-000002.mp4"), 1000U);
}

}  // namespace
}  // namespace minwm
