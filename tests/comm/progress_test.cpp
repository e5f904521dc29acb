// Started collectives move on by themselves, and what goes wrong in one is told where it is waited
// for.

#include "src/comm/progress.h"

#include <atomic>
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "mpi_test.h"
#include "src/comm/mpi_communicator.h"
#include "src/comm/mpi_operation.h"

namespace minwm::comm {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

TEST(Progress, AStartedSumIsCompleteBeforeAnybodyWaits) {
  const auto world = testing::world().communicator();
  // Larger than what MPI sends at once, in several pieces: it moves on only if someone polls.
  const int64_t n = int64_t{3} << 20;
  const at::Tensor full = at::ones({n * world->size()});
  at::Tensor shard = at::zeros({n});
  const auto work = world->reduce_scatter_async(full, shard, "unwaited");
  const auto end = Clock::now() + std::chrono::seconds(20);
  const float* const last = shard.const_data_ptr<float>() + n - 1;
  if (world->size() > 1) {
    // Nothing but time passes: the handle is not touched.
    while (std::atomic_ref<const float>(*last).load() == 0 && Clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(*last, static_cast<float>(world->size()));
  }
  work->wait();
  EXPECT_TRUE(shard.eq(world->size()).all().item<bool>());
}

TEST(Progress, ManyAtOnceFromManyPiecesKeepTheirData) {
  const auto world = testing::world().communicator();
  const int ranks = world->size();
  std::vector<at::Tensor> sums, gathered;
  std::vector<std::unique_ptr<Work>> works;
  for (int i = 0; i < 12; ++i) {
    sums.push_back(at::full({20'000 + i}, static_cast<double>(world->rank() + i)));
    gathered.push_back(at::empty({ranks, 5000}));
    works.push_back(world->all_reduce_async(sums.back(), "sum"));
    works.push_back(world->all_gather_async(at::full({5000}, 100.0 * i + world->rank()),
                                            gathered.back(), "gather"));
  }
  for (size_t i = works.size(); i-- > 0;) {
    works[i]->wait();
  }
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(
        sums[static_cast<size_t>(i)].eq(ranks * (ranks - 1) / 2.0 + ranks * i).all().item<bool>());
    for (int r = 0; r < ranks; ++r) {
      EXPECT_TRUE(gathered[static_cast<size_t>(i)][r].eq(100.0 * i + r).all().item<bool>());
    }
  }
}

TEST(Progress, AnErrorOfTheActionIsThrownWhereItIsWaitedFor) {
  const auto world = testing::world().communicator();
  const Watched watched = comm::watched(*world);
  int runs = 0;
  Call call;
  call.op = "test";
  call.begun = Clock::now();
  auto operation = std::make_shared<MpiOperation>(call, watched.group);
  operation->then([&runs] {
    ++runs;
    fail("the sum does not fit");
  });
  const auto work = std::make_unique<CpuWork>(operation, watched.progress);
  for (int again = 0; again < 2; ++again) {
    try {
      work->wait();
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("the sum does not fit"));
    }
  }
  EXPECT_EQ(runs, 1);
}

/// Moves on by itself, and is over at the third look.
class WatchedOperation : public Operation {
 public:
  using Operation::Operation;
  bool needs_polling() const override { return false; }

 private:
  bool poll() override { return ++looks_ == 3; }
  int looks_ = 0;
};

TEST(Progress, WhatMovesOnByItselfIsWatchedToItsEndInAWorldOfOneToo) {
  const Watched watched = comm::watched(*testing::world().communicator());
  Call call;
  call.op = "test";
  call.begun = Clock::now();
  const auto operation = std::make_shared<WatchedOperation>(call, watched.group);
  watched.progress->add(operation);
  // Kept until it is over, and no longer.
  const auto end = Clock::now() + std::chrono::seconds(20);
  while (operation.use_count() > 1 && Clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(operation->done());
  EXPECT_EQ(operation.use_count(), 1);
}

TEST(Progress, SumsHaveTheSameBitsOnEveryRankAndEveryTime) {
  const auto world = testing::world().communicator();
  const at::Tensor mine = at::arange(30'000, at::kFloat).mul(0.1 * (world->rank() + 1)).sin();
  at::Tensor first = mine.clone(), again = mine.clone(),
             everyone = at::empty({world->size(), 30'000});
  world->all_reduce(first, "x");
  world->all_reduce(again, "x");
  EXPECT_TRUE(first.equal(again));
  world->all_gather(first, everyone, "x");
  EXPECT_TRUE(everyone.eq(first).all().item<bool>());
}

TEST(Progress, PlacesAreShownFromTheRepositoryOn) {
  const CallSite site = "x";
  EXPECT_EQ(place(site.where), fmt::format("tests/comm/progress_test.cpp:{}", __LINE__ - 1));
}

}  // namespace
}  // namespace minwm::comm
