// Every stage on every kind of mesh is the run of one rank: losses, gradients, and what training
// makes of them; and a run may move between meshes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/hdf5.h"
#include "tests/apps/small_chain.h"

namespace minwm {
namespace {

using testing::metrics;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallChain;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

struct Arrangement {
  std::string name;
  int ranks;
  std::string options;
};

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

const std::string kFixed =
    " --train.compute float32 --train.global_batch 4 --train.micro_batch 1 --optimizer.lr 1e-4"
    " --optimizer.warmup 0 --optimizer.schedule constant --optimizer.decay_fraction 0"
    " --train.recompute true";

hdf5::File state_of(const fs::path& run, int step) {
  return {run / "checkpoints" / fmt::format("step-{:06}", step) / "state.h5",
          hdf5::File::Mode::kReadOnly};
}

/// How far first moments (mixes of the last gradients) are from the reference's: the largest
/// difference relative to the largest entry of all, and, dataset by dataset, of norms.
struct Distance {
  double largest = 0, by_dataset = 0;
};
Distance gradient_distance(const fs::path& run, const fs::path& reference, int step) {
  const auto a = state_of(run, step), b = state_of(reference, step);
  EXPECT_EQ(a.datasets(), b.datasets());
  double worst = 0, largest = 0;
  Distance distance;
  for (const auto& name : b.datasets()) {
    if (!name.ends_with("/exp_avg") || !a.contains(name)) {
      continue;
    }
    const at::Tensor ours = a.read(name), theirs = b.read(name), error = ours - theirs;
    EXPECT_TRUE(ours.isfinite().all().item<bool>()) << name;
    worst = std::max(worst, error.abs().max().item<double>());
    largest = std::max(largest, theirs.abs().max().item<double>());
    const auto norm = theirs.norm().item<double>();
    if (norm > 0) {
      distance.by_dataset = std::max(distance.by_dataset, error.norm().item<double>() / norm);
    } else {
      EXPECT_EQ(ours.norm().item<double>(), 0) << name;
    }
  }
  EXPECT_GT(largest, 0);
  distance.largest = worst / largest;
  return distance;
}

/// How far weights and averages are from the reference's, relative to how far the reference's moved
/// since an earlier checkpoint (norms over all).
double weight_distance(const fs::path& run, const fs::path& reference, int step, int before) {
  const auto a = state_of(run, step), b = state_of(reference, step),
             earlier = state_of(reference, before);
  EXPECT_EQ(a.datasets(), b.datasets());
  double error = 0, moved = 0;
  for (const auto& name : b.datasets()) {
    if (name.find("/param/") == std::string::npos && name.find("/ema/") == std::string::npos) {
      continue;
    }
    const at::Tensor ours = a.read(name), theirs = b.read(name);
    EXPECT_TRUE(ours.isfinite().all().item<bool>()) << name;
    error += (ours - theirs).square().sum().item<double>();
    moved += (theirs - earlier.read(name)).square().sum().item<double>();
  }
  EXPECT_GT(moved, 0);
  return std::sqrt(error / moved);
}

/// Every dataset, bit for bit.
void expect_same_state(const fs::path& run, const fs::path& reference, int step) {
  const auto a = state_of(run, step), b = state_of(reference, step);
  ASSERT_EQ(a.datasets(), b.datasets());
  for (const auto& name : b.datasets()) {
    EXPECT_TRUE(at::equal(a.read(name), b.read(name))) << name;
  }
}

/// Largest relative difference of a logged number over the steps.
double curve_difference(const fs::path& run, const fs::path& reference, const std::string& key) {
  const auto a = metrics(run), b = metrics(reference);
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double ratio = a[i].value(key, 0.0) / b[i].value(key, 1.0);
    EXPECT_TRUE(std::isfinite(ratio)) << key;
    worst = std::max(worst, std::abs(ratio - 1));
  }
  return worst;
}

class EveryMesh : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Chain, EveryMesh, testing::every_stage(), testing::stage_name);

TEST_P(EveryMesh, LossesAndGradientsAreThoseOfOneRank) {
  const auto& chain = SmallChain::get();
  const TemporaryFolder folder;
  const std::string one = (folder / "one").string();
  const std::string adamw = kFixed + " --optimizer.name adamw --checkpoint.every 1";
  const Outcome alone = run_minwm(chain.train(GetParam(), one, 2) + adamw);
  ASSERT_EQ(alone.code, 0) << alone.err;
  for (const auto& mesh : meshes()) {
    SCOPED_TRACE(mesh.name);
    const TemporaryFolder spread;
    const std::string run = (spread / "run").string();
    const Outcome outcome =
        run_minwm(chain.train(GetParam(), run, 2) + adamw + " " + mesh.options, mesh.ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const double loss = curve_difference(run, one, "loss"),
                 norm = curve_difference(run, one, "grad_norm"),
                 weights = weight_distance(run, one, 2, 1);
    const Distance gradient = gradient_distance(run, one, 2);
    fmt::print(
        "{:<16} {:<46} loss {:.0e}  norm {:.0e}  gradients {:.0e} of max, {:.0e} by tensor  update "
        "{:.0e}\n",
        GetParam(), mesh.name, loss, norm, gradient.largest, gradient.by_dataset, weights);
    EXPECT_LT(loss, 2e-5);
    EXPECT_LT(norm, 1e-4);
    // A consistency loss compares two predictions that nearly agree: rounding weighs more in it.
    const double room = GetParam() == "consistency" ? 10 : 1;
    EXPECT_LT(gradient.largest, 2e-5 * room);
    EXPECT_LT(gradient.by_dataset, 2e-4 * room);
    EXPECT_LT(weights, 1e-2 * room);
  }
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
    const std::string call = chain.train("teacher-forcing", "unused", 8) + kFixed +
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
  const std::string adamw = kFixed + " --optimizer.name adamw";
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
    return chain.train("dmd", run, steps) + kFixed + mesh;
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
  ASSERT_EQ(run_minwm(chain.train("teacher-forcing", run, 4) + kFixed, 1).code, 0);
  const fs::path last = fs::path(run) / "checkpoints/step-000004/state.h5";
  {
    std::fstream file(last, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(last) / 2));
    file.write("\x5a\xa5\x5a\xa5", 4);
  }
  const Outcome outcome =
      run_minwm(chain.train("teacher-forcing", run, 6) + kFixed + " --parallel.shard 2", 2);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("step-000004"));
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("continuing after step 2"));
  EXPECT_EQ(metrics(run).size(), 6U);
}

}  // namespace
}  // namespace minwm
