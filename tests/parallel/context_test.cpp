#include "minwm/parallel/context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/torch.h>

#include "context_meshes.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::parallel {
namespace {

using nn::FrameRows;
using testing::contexts;
using testing::NamedContext;
using testing::own_rows;

constexpr int64_t kFrames = 3;

at::Tensor leaf(at::IntArrayRef shape, const char* purpose) {
  return random_normal(shape, {1, purpose}).requires_grad_(true);
}

TEST(Context, RowsOfAllRanksCoverAFrameAndLieInTheirPortions) {
  for (const auto& ranks : contexts()) {
    SCOPED_TRACE(ranks.name);
    const Context& context = *ranks.context;
    for (const int64_t tokens : {16, 13, 7, 3}) {
      at::Tensor hits = at::zeros({tokens});
      const Rows own = context.rows(tokens), portion = context.portion(tokens);
      hits.narrow(0, own.begin, own.count).add_(1);
      EXPECT_TRUE(testing::summed(ranks, hits).eq(1).all().item<bool>()) << tokens;
      EXPECT_GE(own.begin, portion.begin);
      EXPECT_LE(own.begin + own.count, portion.begin + portion.count);
    }
  }
}

TEST(Context, ScatterAndGatherAreInverseAndTheirGradientsStayReplicated) {
  for (const auto& ranks : contexts()) {
    SCOPED_TRACE(ranks.name);
    const Context& context = *ranks.context;
    for (const int64_t tokens : {16, 13, 7, 3}) {
      const at::Tensor x = leaf({2, kFrames, tokens, 5}, "x"),
                       weights = random_normal({2, kFrames, tokens, 5}, {1, "weights"});
      const Rows own = context.rows(tokens);
      const at::Tensor part = context.scatter(x, 2);
      EXPECT_TRUE(at::equal(part, x.narrow(2, own.begin, own.count)));
      const at::Tensor back = context.gather(part * 2, 2, tokens);
      EXPECT_TRUE(at::equal(back, x * 2));
      (back * weights).sum().backward();
      EXPECT_TRUE(at::equal(x.grad(), weights * 2));
    }
  }
}

TEST(Context, GradientsOfSplitAndJoinedTensorsAreSharesThatAddUp) {
  for (const auto& ranks : contexts()) {
    SCOPED_TRACE(ranks.name);
    const Context& context = *ranks.context;
    const auto rank = static_cast<double>(ranks.mesh.context->rank());
    const auto size = static_cast<double>(context.size());
    for (const int64_t tokens : {16, 7, 3}) {
      const at::Tensor x = leaf({2, tokens, 5}, "x"),
                       weights = random_normal({2, tokens, 5}, {1, "weights"});
      const at::Tensor joined = context.join(context.split(x, 1) * 2, 1, tokens);
      EXPECT_TRUE(at::equal(joined, x * 2));
      // Every rank makes something else of it.
      (joined * weights * (rank + 1)).sum().backward();
      const at::Tensor whole = testing::summed(ranks, x.grad());
      EXPECT_TRUE(at::allclose(whole, weights * (size * (size + 1)), 1e-5, 1e-5));
      const Rows own = context.rows(tokens);
      EXPECT_EQ(x.grad().count_nonzero().item<int64_t>(), 2 * own.count * 5);
    }
  }
}

/// What a rank of `context` has after to_heads.
at::Tensor expected_heads(const NamedContext& ranks, const at::Tensor& x, int64_t frames,
                          const FrameRows& tokens) {
  std::vector<at::Tensor> parts;
  for (int64_t frame = 0; frame < frames; ++frame) {
    const Rows portion = ranks.context->portion(tokens.of(frame));
    parts.push_back(x.narrow(1, tokens.before(frame) + portion.begin, portion.count));
  }
  const int64_t heads = x.size(2), size = ranks.mesh.ulysses->size(),
                rank = ranks.mesh.ulysses->rank();
  const int64_t first = heads * rank / size;
  return at::cat(parts, 1).narrow(2, first, heads * (rank + 1) / size - first);
}

/// to_heads and back, values and gradients.
void expect_exchange(const NamedContext& ranks, int64_t frames, const FrameRows& tokens,
                     int64_t heads) {
  const Context& context = *ranks.context;
  const std::vector<int64_t> shape{2, tokens.before(frames), heads, 4};
  const at::Tensor x = random_normal(shape, {1, "x"}), y = random_normal(shape, {1, "y"}),
                   weights = random_normal(shape, {1, "weights"});
  const auto own = [&](const at::Tensor& whole) {
    return own_rows(context, whole, frames, tokens);
  };
  const at::Tensor mine = own(x).detach().requires_grad_(true),
                   other = own(y).detach().requires_grad_(true);
  const auto held = context.to_heads({mine, other}, frames, tokens);
  EXPECT_TRUE(at::equal(held[0], expected_heads(ranks, x, frames, tokens)));
  EXPECT_TRUE(at::equal(held[1], expected_heads(ranks, y, frames, tokens)));
  // Two paths, as rotary and camera make them.
  const at::Tensor rows =
      context.to_rows(at::cat({held[0] * 3, held[1]}, 2), frames, tokens, heads, 2);
  EXPECT_TRUE(at::equal(rows, own(at::cat({x * 3, y}, 2))));
  (rows * own(at::cat({weights, weights * 2}, 2))).sum().backward();
  EXPECT_TRUE(at::allclose(mine.grad(), own(weights * 3)));
  EXPECT_TRUE(at::allclose(other.grad(), own(weights * 2)));
}

TEST(Context, HeadsAreExchangedForRowsAndBackWhateverDividesWhat) {
  for (const auto& ranks : contexts()) {
    SCOPED_TRACE(ranks.name);
    for (const int64_t heads : {3, 4, 5}) {
      if (heads < ranks.mesh.ulysses->size()) {
        continue;
      }
      SCOPED_TRACE(heads);
      for (const int64_t tokens : {16, 13, 7, 3}) {
        expect_exchange(ranks, kFrames, tokens, heads);
      }
      expect_exchange(ranks, 4, std::vector<int64_t>{13, 13, 6, 1}, heads);
    }
  }
}

TEST(Context, FewerHeadsThanUlyssesRanksAreRefused) {
  for (const auto& ranks : contexts()) {
    if (ranks.mesh.ulysses->size() < 2) {
      continue;
    }
    try {
      ranks.context->to_heads({at::zeros({1, 8, 1, 4})}, 1, 8 * ranks.context->size());
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("only 1 attention heads"));
    }
  }
}

TEST(Context, AloneItPassesEverythingThrough) {
  const Context alone;
  const at::Tensor x = random_normal({1, 6, 2, 4}, {1, "x"});
  EXPECT_EQ(alone.size(), 1);
  EXPECT_TRUE(alone.scatter(x, 1).is_same(x));
  EXPECT_TRUE(alone.gather(x, 1, 6).is_same(x));
  EXPECT_TRUE(alone.to_heads({x}, 3, 2).front().is_same(x));
  EXPECT_TRUE(alone.to_rows(x, 3, 2, 2, 1).is_same(x));
}

}  // namespace
}  // namespace minwm::parallel
