#include "minwm/nn/attention.h"

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::nn {
namespace {

constexpr int64_t kTokens = 3;

/// Attention over a plan equals dense attention under the mask the plan stands for.
void expect_plan_equals_mask(const FramePlan& plan) {
  const int64_t n = plan.frames() * kTokens;
  const at::Tensor q = random_normal({2, n, 2, 8}, {1, "q"}),
                   k = random_normal({2, n, 2, 8}, {1, "k"}),
                   v = random_normal({2, n, 2, 8}, {1, "v"});
  const at::Tensor scores =
      at::matmul(q.transpose(1, 2), k.transpose(1, 2).transpose(2, 3)) / std::sqrt(8.0);
  const at::Tensor masked =
      scores.masked_fill(dense_mask(plan, kTokens).logical_not(), -1e9).softmax(-1);
  const at::Tensor dense = at::matmul(masked, v.transpose(1, 2)).transpose(1, 2);
  EXPECT_TRUE(at::allclose(attend(q, k, v, plan, kTokens), dense, 1e-5, 1e-5));
}

TEST(Attention, FollowsEveryPlan) {
  expect_plan_equals_mask(bidirectional_plan(5));
  expect_plan_equals_mask(teacher_forcing_plan(6, 2));
  expect_plan_equals_mask(teacher_forcing_plan(4, 1));
  expect_plan_equals_mask(block_causal_plan(7, 3));
  expect_plan_equals_mask(block_causal_plan(7, 2, 4, true));
}

TEST(Attention, LeavingOutTheLastCleanChunkChangesNoNoisyFrame) {
  const at::Tensor whole = random_normal({1, 12 * kTokens, 2, 8}, {1, "x"});
  const at::Tensor cut =
      at::cat({whole.narrow(1, 0, 4 * kTokens), whole.narrow(1, 6 * kTokens, 6 * kTokens)}, 1);
  const at::Tensor with = attend(whole, whole, whole, teacher_forcing_plan(6, 2), kTokens);
  const auto plan = teacher_forcing_plan(6, 2, false);
  EXPECT_EQ(plan.positions, (std::vector<int64_t>{0, 1, 2, 3, 0, 1, 2, 3, 4, 5}));
  const at::Tensor noisy = with.narrow(1, 6 * kTokens, 6 * kTokens);
  EXPECT_TRUE(
      at::equal(attend(cut, cut, cut, plan, kTokens).narrow(1, 4 * kTokens, 6 * kTokens), noisy));
  const at::Tensor queries = cut.narrow(1, 4 * kTokens, 6 * kTokens);
  EXPECT_TRUE(at::equal(attend(queries, cut, cut, queries_from(plan, 4), kTokens), noisy));
}

TEST(Attention, TheLastChunkOfTeacherForcingMayBeShort) {
  const auto plan = teacher_forcing_plan(5, 2);
  EXPECT_EQ(plan.positions, (std::vector<int64_t>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4}));
  // Noisy frame 4 sees the clean chunks before it and itself.
  const auto& last = plan.chunks.back();
  EXPECT_EQ(last.frames.begin, 9);
  EXPECT_EQ(last.frames.end, 10);
  ASSERT_EQ(last.sees.size(), 2U);
  EXPECT_EQ(last.sees[0].end, 4);
  expect_plan_equals_mask(plan);
  EXPECT_THROW(teacher_forcing_plan(5, 0), Error);
}

TEST(Attention, ManyKeysTakeTheOtherKernelWithTheSameResult) {
  const at::Tensor q = random_normal({1, 4, 2, 8}, {1, "q"}),
                   k = random_normal({1, 1500, 2, 8}, {1, "k"}),
                   v = random_normal({1, 1500, 2, 8}, {1, "v"});
  const at::Tensor weights =
      (at::matmul(q.transpose(1, 2), k.transpose(1, 2).transpose(2, 3)) / std::sqrt(8.0))
          .softmax(-1);
  EXPECT_TRUE(at::allclose(attend(q, k, v), at::matmul(weights, v.transpose(1, 2)).transpose(1, 2),
                           1e-5, 1e-5));
}

}  // namespace
}  // namespace minwm::nn
