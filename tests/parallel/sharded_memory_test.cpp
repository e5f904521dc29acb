// The memory of a sharded training step, to the byte: 16 bytes per parameter over the ranks, and a
// few blocks that do not grow in number with the model.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/parallel/sharded_model.h"
#include "tests/parallel/counting_allocator.h"
#include "tests/parallel/sharded_test.h"

namespace minwm::parallel {
namespace {

using testing::CountedBytes;
using testing::ToySize;
using testing::world;

constexpr ToySize kSize{.width = 256, .hidden = 512, .blocks = 8};
constexpr int64_t kBlockBytes = 4 * (2 * 256 * 512 + 512 + 2 * 256 + 5);
constexpr int64_t kRootBytes = 4 * (2 * 256 * 256 + 256);
constexpr int64_t kMatrixBytes = 4 * 256 * 512;
/// Inputs of all blocks and the inner values of one, for 4 rows.
constexpr int64_t kActivations = 4 * 4 * (8 * 2 * 256 + 4 * 512 + 16 * 256);
/// Padding of a slice, malloc's own, and views.
constexpr int64_t kSlack = 32 << 10;

/// What a sum over MPI receives from other ranks before it adds: (N - 1) / N of a block, no more
/// than 64 MiB.
int64_t arrived() {
  return kBlockBytes * (world().size() - 1) / world().size();
}

struct Measured {
  int64_t construction = 0, steady = 0, parameters = 0, peak = 0;
};

Measured measure(const ShardOptions& options) {
  const comm::Mesh mesh = testing::one_copy();
  const at::Tensor sample = testing::toy_sample(world().rank(), 0, kSize.width);
  const CountedBytes bytes;
  Measured measured;
  testing::ShardedToy toy{testing::hollow_toy(kSize), nullptr};
  CountedBytes::restart();
  toy.sharded =
      std::make_shared<ShardedModel>("toy", *toy.model, toy.model->units(), mesh, options);
  toy.model->runner = toy.sharded;
  measured.construction = CountedBytes::peak();
  toy.sharded->load([](const std::string&, int64_t begin, int64_t count) {
    return at::arange(begin, begin + count, at::kFloat).sin_().mul_(0.05);
  });
  std::vector<at::Tensor> moments;
  for (const auto& piece : toy.sharded->pieces()) {
    moments.push_back(at::zeros_like(piece.values));
    moments.push_back(at::zeros_like(piece.values));
  }
  for (const auto& parameter : toy.model->parameters()) {
    measured.parameters += parameter.numel();
  }
  measured.steady = CountedBytes::now();
  CountedBytes::restart();
  for (int micro = 0; micro < 2; ++micro) {
    toy.sharded->begin_step();
    toy.model->forward(sample).square().mean().backward();
    toy.sharded->end_backward();
    toy.sharded->finish_gradients();
  }
  measured.peak = CountedBytes::peak();
  EXPECT_LE(CountedBytes::now(), measured.steady + kSlack) << "a step left something behind";
  return measured;
}

void print(const char* what, const Measured& measured) {
  if (world().rank() == 0) {
    fmt::print("  {} ranks, {}: {} parameters, steady {:.3f} x 16 P / N, step {:.2f} blocks more\n",
               world().size(), what, measured.parameters,
               static_cast<double>(measured.steady * world().size()) /
                   static_cast<double>(16 * measured.parameters),
               static_cast<double>(measured.peak - measured.steady) / kBlockBytes);
  }
}

TEST(ShardedMemory, IsSixteenBytesPerParameterOverTheRanksAndThreeBlocks) {
  const Measured measured = measure({});
  print("recomputed", measured);
  const int64_t share = 16 * measured.parameters / world().size();
  EXPECT_LE(measured.steady, share + kSlack);
  // The root is there with its gradient, and either a parameter's gradient on its way into the flat
  // one, or what MPI has received of another's sum.
  EXPECT_LE(measured.peak, share + 3 * kBlockBytes + 2 * kRootBytes +
                               std::max(kMatrixBytes, arrived()) + kActivations + kSlack);
}

TEST(ShardedMemory, WithoutPrefetchIsABlockLess) {
  const Measured ahead = measure({.prefetch = 1}), alone = measure({.prefetch = 0});
  print("no prefetch", alone);
  EXPECT_LE(alone.peak, ahead.peak - kBlockBytes / 2);
}

TEST(ShardedMemory, WithKeptActivationsIsABlockMore) {
  const Measured measured = measure({.recompute = false});
  print("kept", measured);
  const int64_t share = 16 * measured.parameters / world().size();
  const int64_t kept = 8 * kActivations;
  EXPECT_LE(measured.peak,
            share + 4 * kBlockBytes + 2 * kRootBytes + kMatrixBytes + arrived() + kept + kSlack);
}

TEST(ShardedMemory, ConstructionNeverHoldsMoreThanOneUnit) {
  const Measured measured = measure({});
  // Masters and gradients, and for a moment the addresses of one unit.
  const int64_t share = 8 * measured.parameters / world().size();
  EXPECT_LE(measured.construction, share + kBlockBytes + kSlack);
}

}  // namespace
}  // namespace minwm::parallel
