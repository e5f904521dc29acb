#include "minwm/core/random.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "temporary_folder.h"

namespace minwm {
namespace {

constexpr RandomKey kKey{.seed = 7, .purpose = "test", .step = 3, .sample = 5, .index = 1};

TEST(Random, MixAndStreamsMatchThePublishedVectors) {
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafU);
  EXPECT_EQ(mix64(1), 0x910a2dec89025cc1U);
  RandomStream layout(mix64(1 * 0xD1342543DE82EF95U + 1));
  EXPECT_EQ(layout.uniform(), 0.029643932948034468);
  EXPECT_EQ(layout.uniform(), 0.5073188499159942);
  EXPECT_EQ(layout.uniform(), 0.9086603255632721);
  RandomStream trajectory(mix64(12345 * 0xD1342543DE82EF95U + 9));
  EXPECT_EQ(trajectory.uniform(), 0.6241626926650268);
  EXPECT_EQ(trajectory.uniform(), 0.21823911941134744);
}

TEST(Random, EveryPartOfTheAddressChangesTheStream) {
  std::set<uint64_t> keys = {stream_key(kKey)};
  for (RandomKey other :
       {RandomKey{8, "test", 3, 5, 1}, RandomKey{7, "tesu", 3, 5, 1}, RandomKey{7, "test", 4, 5, 1},
        RandomKey{7, "test", 3, 6, 1}, RandomKey{7, "test", 3, 5, 2}, RandomKey{7, "test", 5, 3, 1},
        RandomKey{7, "test", 3, 1, 5}}) {
    keys.insert(stream_key(other));
  }
  EXPECT_EQ(keys.size(), 8U);
}

TEST(Random, NormalsHaveTheMomentsOfANormal) {
  const at::Tensor x = random_normal({1000, 500}, kKey).to(at::kDouble);
  // 5e5 draws: each bound is about five standard errors.
  EXPECT_NEAR(x.mean().item<double>(), 0, 0.0071);
  EXPECT_NEAR(x.var().item<double>(), 1, 0.01);
  EXPECT_NEAR(x.pow(3).mean().item<double>(), 0, 0.03);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 0.07);
  EXPECT_NEAR((x.flatten().slice(0, 0, -1) * x.flatten().slice(0, 1)).mean().item<double>(), 0,
              0.0071);
}

TEST(Random, AnElementDependsOnItsAddressAndPositionAlone) {
  const at::Tensor all = random_normal({100001}, kKey);
  EXPECT_TRUE(random_normal({333}, kKey).equal(all.slice(0, 0, 333)));
  EXPECT_TRUE(random_normal({3, 111}, kKey).flatten().equal(all.slice(0, 0, 333)));
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  EXPECT_TRUE(random_normal({100001}, kKey).equal(all));
  at::set_num_threads(threads);
}

TEST(Random, UniformsFillTheHalfOpenUnitInterval) {
  const at::Tensor x = random_uniform({200000}, kKey);
  EXPECT_GE(x.min().item<float>(), 0.0F);
  EXPECT_LT(x.max().item<float>(), 1.0F);
  EXPECT_NEAR(x.mean().item<double>(), 0.5, 0.004);
  EXPECT_NEAR(x.to(at::kDouble).var().item<double>(), 1.0 / 12, 0.001);
  EXPECT_EQ(random_uniform(kKey), random_uniform(kKey));
}

TEST(Random, IntegersReachEveryValueAndNoOther) {
  RandomStream stream(kKey);
  std::set<int64_t> seen;
  for (int i = 0; i < 200; ++i) {
    seen.insert(stream.integer(5));
  }
  EXPECT_EQ(seen, (std::set<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_NE(testing::error_of([] { (void)random_integer(0, kKey); }), "");
}

TEST(Random, PermutationsAreCompleteAndDiffer) {
  auto order = random_permutation(100, kKey);
  RandomKey next = kKey;
  next.step += 1;
  EXPECT_NE(order, random_permutation(100, next));
  EXPECT_EQ(order, random_permutation(100, kKey));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(order[static_cast<size_t>(i)], i);
  }
  EXPECT_TRUE(random_permutation(0, kKey).empty());
}

}  // namespace
}  // namespace minwm
