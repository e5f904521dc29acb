// Every stage on every kind of mesh is the run of one rank: losses, gradients, and what training
// makes of them; and a run may move between meshes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/apps/mesh_runs.h"

namespace minwm {
namespace {

using testing::Arrangement;
using testing::curve_difference;
using testing::expect_same_state;
using testing::gradient_distance;
using testing::metrics;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallChain;
using testing::TemporaryFolder;
using testing::weight_distance;
namespace fs = std::filesystem;

const std::vector<Arrangement>& meshes() {
  static const std::vector<Arrangement> all = {
      {"shard 2", 2, "--parallel.shard 2"},
      {"shard 4, activations kept", 4, "--parallel.shard 4 --train.recompute false"},
      {"replicate 2 x shard 2, reduced once", 4,
       "--parallel.replicate 2 --parallel.shard 2 --parallel.reduce last"},
      {"context 2, ring", 2, "--parallel.context 2 --parallel.ulysses 1"},
      {"shard 2 x context 2, ulysses", 4, "--parallel.shard 2 --parallel.context 2"},
      {"context 4 = ulysses 2 x ring 2, no prefetch", 4,
       "--parallel.context 4 --parallel.ulysses 2 --parallel.prefetch 0"},
  };
  return all;
}

class EveryMesh : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Chain, EveryMesh, testing::every_stage(), testing::stage_name);

TEST_P(EveryMesh, LossesAndGradientsAreThoseOfOneRank) {
  testing::expect_one_rank_everywhere(SmallChain::get(), GetParam(), meshes(), "");
}

/// Trains on from step to step, each leg on another mesh.
void travel(const std::string& call, const std::string& run) {
  const std::vector<Arrangement> legs = {
      {"2", 4, "--parallel.shard 4"},
      {"4", 2, "--parallel.shard 2 --parallel.context 1"},
      {"6", 1, ""},
      {"8", 4, "--parallel.shard 2 --parallel.context 2"},
  };
  for (const auto& leg : legs) {
    const Outcome outcome = run_minwm(
        fmt::format("{} --output.dir {} --train.steps {} {}", call, run, leg.name, leg.options),
        leg.ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
}

TEST(Meshes, ARunMovesFromFourRanksToTwoToOneToFour) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string moved = (folder / "moved").string(), one = (folder / "one").string();
  for (const std::string optimizer : {"adamw", "muon"}) {
    const std::string call = chain.train("teacher-forcing", "unused", 8) + testing::kFixedTraining +
                             " --optimizer.muon_bf16 false --optimizer.name " + optimizer;
    const std::string through = one + optimizer, travelled = moved + optimizer;
    const Outcome straight = run_minwm(call + " --output.dir " + through);
    ASSERT_EQ(straight.code, 0) << straight.err;
    travel(call, travelled);
    EXPECT_LT(curve_difference(travelled, through, "loss"), 1e-4) << optimizer;
    EXPECT_LT(curve_difference(travelled, through, "grad_norm"), 1e-3) << optimizer;
    const double weights = weight_distance(travelled, through, 8, 6);
    fmt::print("4, 2, 1, 4 ranks with {}: weights {:.0e} of two steps' change\n", optimizer,
               weights);
    EXPECT_LT(weights, 2e-2) << optimizer;
  }
}

TEST(Meshes, SixteenRanksAreOneRank) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string one = (folder / "one").string(), many = (folder / "many").string();
  const std::string adamw = testing::kFixedTraining + " --optimizer.name adamw";
  const Outcome alone = run_minwm(chain.train("teacher-forcing", one, 2) + adamw);
  ASSERT_EQ(alone.code, 0) << alone.err;
  const Outcome spread =
      run_minwm(chain.train("teacher-forcing", many, 2) + adamw +
                    " --parallel.shard 4 --parallel.context 4 --parallel.ulysses 2",
                16);
  ASSERT_EQ(spread.code, 0) << spread.err;
  EXPECT_LT(curve_difference(many, one, "loss"), 2e-5);
  EXPECT_LT(gradient_distance(many, one, 2).largest, 2e-5);
}

TEST(Meshes, AStoppedRunContinuesBitForBitOnTheSameMesh) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string whole = (folder / "whole").string(), legs = (folder / "legs").string();
  const std::string mesh = " --parallel.shard 2 --parallel.context 2";
  const auto call = [&](const std::string& run, int steps) {
    return chain.train("dmd", run, steps) + testing::kFixedTraining + mesh;
  };
  ASSERT_EQ(run_minwm(call(whole, 6), 4).code, 0);
  ASSERT_EQ(run_minwm(call(legs, 3), 4).code, 0);
  ASSERT_EQ(run_minwm(call(legs, 6), 4).code, 0);
  expect_same_state(legs, whole, 6);
  EXPECT_EQ(curve_difference(legs, whole, "loss"), 0);
}

TEST(Meshes, ADamagedCheckpointIsNamedAndTheOneBeforeItContinues) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string run = (folder / "run").string();
  ASSERT_EQ(run_minwm(chain.train("teacher-forcing", run, 4) + testing::kFixedTraining, 1).code, 0);
  const fs::path last = fs::path(run) / "checkpoints/step-000004/state.h5";
  {
    std::fstream file(last, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(last) / 2));
    file.write("\x5a\xa5\x5a\xa5", 4);
  }
  const Outcome outcome = run_minwm(
      chain.train("teacher-forcing", run, 6) + testing::kFixedTraining + " --parallel.shard 2", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("step-000004"));
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("continuing after step 2"));
  EXPECT_EQ(metrics(run).size(), 6U);
}

}  // namespace
}  // namespace minwm
