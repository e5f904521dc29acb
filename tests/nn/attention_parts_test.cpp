#include "minwm/nn/attention_parts.h"

#include <cmath>

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/random.h"
#include "minwm/nn/frame_rows.h"

namespace minwm::nn {
namespace {

constexpr int64_t kQueries = 19, kKeys = 23, kFirst = 9;  // keys in two parts

struct Inputs {
  at::Tensor q, k, v, dout;  // [1, 3, rows, dim]
};

Inputs inputs(int64_t dim, at::ScalarType type) {
  // Stored rows first, as projections come.
  const auto draw = [&](int64_t rows, const char* purpose) {
    return random_normal({1, rows, 3, dim}, {1, purpose}).to(type).transpose(1, 2);
  };
  return {draw(kQueries, "q"), draw(kKeys, "k"), draw(kKeys, "v"), draw(kQueries, "dout")};
}

double distance(const at::Tensor& ours, const at::Tensor& reference) {
  return ((ours.to(at::kDouble) - reference).abs().max() / reference.abs().max()).item<double>();
}

void expect_parts_make_the_whole(int64_t dim, at::ScalarType type, bool dense_sums,
                                 double tolerance) {
  const Inputs x = inputs(dim, type);
  const auto leaf = [](const at::Tensor& t) {
    return t.to(at::kDouble).contiguous().requires_grad_(true);
  };
  const at::Tensor q = leaf(x.q), k = leaf(x.k), v = leaf(x.v);
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(dim));
  const at::Tensor reference = at::matmul(scores.softmax(-1), v);
  reference.backward(x.dout.to(at::kDouble));

  const auto first = [](const at::Tensor& t) { return t.narrow(2, 0, kFirst); };
  const auto second = [](const at::Tensor& t) { return t.slice(2, kFirst); };
  AttentionPart whole;
  merge_part(whole, attend_part(x.q, first(x.k), first(x.v)));
  merge_part(whole, attend_part(x.q, second(x.k), second(x.v)));
  EXPECT_EQ(whole.out.scalar_type(), at::kFloat);
  EXPECT_LE(distance(whole.out, reference.detach()), tolerance);
  EXPECT_LE(distance(whole.log_sum, scores.logsumexp(-1).detach()), tolerance);

  whole.out = whole.out.to(type);
  whole.log_sum = dense_sums ? whole.log_sum.contiguous()
                             : whole.log_sum.transpose(1, 2).contiguous().transpose(1, 2);
  const auto one = attend_part_backward(x.dout, x.q, first(x.k), first(x.v), whole),
             two = attend_part_backward(x.dout, x.q, second(x.k), second(x.v), whole);
  EXPECT_LE(distance(one.q.to(at::kFloat) + two.q.to(at::kFloat), q.grad()), tolerance);
  EXPECT_LE(distance(at::cat({one.k, two.k}, 2), k.grad()), tolerance);
  EXPECT_LE(distance(at::cat({one.v, two.v}, 2), v.grad()), tolerance);
}

TEST(AttentionParts, MergedPartsAndTheirGradientsAreThoseOfAllKeys) {
  for (const int64_t dim : {4, 5, 6, 8, 64, 128}) {
    for (const bool dense_sums : {false, true}) {
      SCOPED_TRACE(dim);
      expect_parts_make_the_whole(dim, at::kFloat, dense_sums, 2e-6);
      expect_parts_make_the_whole(dim, at::kBFloat16, dense_sums, 1e-2);
    }
  }
}

TEST(AttentionParts, KeysThatOutweighAllOthersDoNotOverflow) {
  const at::Tensor q = at::full({1, 1, 1, 4}, 100.0), v = at::ones({1, 1, 1, 4});
  AttentionPart whole;
  merge_part(whole, attend_part(q, at::full({1, 1, 1, 4}, -100.0), v));
  merge_part(whole, attend_part(q, at::full({1, 1, 1, 4}, 100.0), v * 7));
  EXPECT_TRUE(at::equal(whole.out, v * 7));
  EXPECT_EQ(whole.log_sum.item<float>(), 20000);
}

TEST(FrameRows, PiecesOfEveryFrameAddUp) {
  const FrameRows even(13), uneven(std::vector<int64_t>{13, 13, 6, 1});
  EXPECT_EQ(even.before(3), 39);
  EXPECT_EQ(uneven.before(3), 32);
  EXPECT_EQ(uneven.of(FrameRange{1, 3}), 19);
  EXPECT_EQ(uneven.from(2).before(2), 7);
  for (const int64_t frame : {0, 1, 2, 3}) {
    int64_t sum = 0;
    for (int64_t piece = 0; piece < 4; ++piece) {
      sum += uneven.piece(piece, 4).of(frame);
    }
    EXPECT_EQ(sum, uneven.of(frame));
  }
  EXPECT_EQ(even.piece(3, 4).of(2), 4);  // rows 9 … 12
  const auto runs = uneven.runs(4);
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].end, 2);
  EXPECT_EQ(runs[2].begin, 3);
}

}  // namespace
}  // namespace minwm::nn
