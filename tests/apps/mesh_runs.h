#pragma once
// Runs of the same training on different meshes, compared.

#include <cmath>

#include <gtest/gtest.h>

#include "minwm/core/hdf5.h"
#include "tests/apps/small_chain.h"

namespace minwm::testing {

struct Arrangement {
  std::string name;
  int ranks;
  std::string options;
};

/// What a comparison of meshes needs: float32, and updates that are not amplified.
inline const std::string kFixedTraining =
    " --train.compute float32 --train.global_batch 4 --train.micro_batch 1 --optimizer.lr 1e-4"
    " --optimizer.warmup 0 --optimizer.schedule constant --optimizer.decay_fraction 0"
    " --train.recompute true";

inline hdf5::File state_of(const std::filesystem::path& run, int step) {
  return {run / "checkpoints" / fmt::format("step-{:06}", step) / "state.h5",
          hdf5::File::Mode::kReadOnly};
}

/// How far first moments (mixes of the last gradients) are from the reference's: the largest
/// difference relative to the largest entry of all, and, dataset by dataset, of norms.
struct Distance {
  double largest = 0, by_dataset = 0;
};
inline Distance gradient_distance(const std::filesystem::path& run,
                                  const std::filesystem::path& reference, int step) {
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
inline double weight_distance(const std::filesystem::path& run,
                              const std::filesystem::path& reference, int step, int before) {
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
inline void expect_same_state(const std::filesystem::path& run,
                              const std::filesystem::path& reference, int step) {
  const auto a = state_of(run, step), b = state_of(reference, step);
  ASSERT_EQ(a.datasets(), b.datasets());
  for (const auto& name : b.datasets()) {
    EXPECT_TRUE(at::equal(a.read(name), b.read(name))) << name;
  }
}

/// Largest relative difference of a logged number over the steps.
inline double curve_difference(const std::filesystem::path& run,
                               const std::filesystem::path& reference, const std::string& key) {
  const auto a = metrics(run), b = metrics(reference);
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  int compared = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double ours = a[i].value(key, 0.0), theirs = b[i].value(key, 0.0);
    if (ours == 0 && theirs == 0) {
      continue;  // before the critic has moved, DMD's scores agree exactly
    }
    EXPECT_TRUE(std::isfinite(ours / theirs)) << key;
    worst = std::max(worst, std::abs(ours / theirs - 1));
    ++compared;
  }
  EXPECT_GT(compared, 0) << key;
  return worst;
}

/// Two steps of a stage on every mesh against one rank: losses, gradients and updates, printed and
/// held to what rounding explains. @param more  options of all runs.
inline void expect_one_rank_everywhere(const SmallChain& chain, const std::string& stage,
                                       const std::vector<Arrangement>& meshes,
                                       const std::string& more) {
  const TemporaryFolder folder;
  const std::string one = (folder / "one").string();
  const std::string adamw = kFixedTraining + " --optimizer.name adamw --checkpoint.every 1" + more;
  const Outcome alone = run_minwm(chain.train(stage, one, 2) + adamw);
  ASSERT_EQ(alone.code, 0) << alone.err;
  for (const auto& mesh : meshes) {
    SCOPED_TRACE(mesh.name);
    const TemporaryFolder spread;
    const std::string run = (spread / "run").string();
    const Outcome outcome =
        run_minwm(chain.train(stage, run, 2) + adamw + " " + mesh.options, mesh.ranks);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const double loss = curve_difference(run, one, "loss"),
                 norm = curve_difference(run, one, "grad_norm"),
                 weights = weight_distance(run, one, 2, 1);
    const Distance gradient = gradient_distance(run, one, 2);
    fmt::print(
        "{:<16} {:<46} loss {:.0e}  norm {:.0e}  gradients {:.0e} of max, {:.0e} by tensor  update "
        "{:.0e}\n",
        stage, mesh.name, loss, norm, gradient.largest, gradient.by_dataset, weights);
    EXPECT_LT(loss, 2e-5);
    EXPECT_LT(norm, 1e-4);
    // A consistency loss compares two predictions that nearly agree: rounding weighs more in it.
    const double room = stage == "consistency" ? 10 : 1;
    EXPECT_LT(gradient.largest, 2e-5 * room);
    EXPECT_LT(gradient.by_dataset, 2e-4 * room);
    EXPECT_LT(weights, 1e-2 * room);
  }
}

}  // namespace minwm::testing
