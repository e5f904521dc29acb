// Every collective against its definition, on as many ranks as mpirun started.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/comm/mpi.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "mpi_test.h"
#include "src/comm/mpi_communicator.h"

namespace minwm::comm {
namespace {

using ::testing::HasSubstr;

/// What rank `r` brings: the same on every rank that asks.
at::Tensor part_of(int rank, int64_t n, at::ScalarType dtype = at::kFloat) {
  const RandomKey key{.seed = 1, .purpose = "comm.test", .sample = static_cast<uint64_t>(rank)};
  return at::isIntegralType(dtype, true) ? (random_normal({n}, key) * 10).to(dtype)
                                         : random_normal({n}, key).to(dtype);
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

struct Kind {
  const char* name;
  std::shared_ptr<Communicator> (*make)();
};

std::shared_ptr<Communicator> self() {
  return self_communicator();
}
std::shared_ptr<Communicator> mpi() {
  return testing::world().communicator();
}
/// Three elements per MPI call, so that every message is split.
std::shared_ptr<Communicator> split_messages() {
  return with_max_count(*testing::world().communicator(), 3);
}

class Collectives : public ::testing::TestWithParam<Kind> {
 protected:
  std::shared_ptr<Communicator> comm_ = GetParam().make();
  int rank_ = comm_->rank(), size_ = comm_->size();
};

TEST_P(Collectives, BroadcastCopiesTheRoot) {
  for (int root = 0; root < size_; ++root) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kBool, at::kLong, at::kByte}) {
      at::Tensor x = part_of(rank_, 10, dtype);
      comm_->broadcast(x, root, "x");
      EXPECT_TRUE(x.equal(part_of(root, 10, dtype))) << c10::toString(dtype);
    }
  }
}

TEST_P(Collectives, AllReduceSumsEveryDtype) {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kLong, at::kInt, at::kShort}) {
    at::Tensor expected = part_of(0, 11, dtype).clone();
    for (int r = 1; r < size_; ++r) {
      expected += part_of(r, 11, dtype);
    }
    at::Tensor x = part_of(rank_, 11, dtype);
    comm_->all_reduce(x, "x");
    EXPECT_TRUE(x.allclose(expected, 1e-6, 1e-6)) << c10::toString(dtype);
  }
}

TEST_P(Collectives, HalfPrecisionSumsAreRoundedOnceFromFloat32) {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    at::Tensor exact = at::zeros({257}, at::kDouble);
    for (int r = 0; r < size_; ++r) {
      exact += part_of(r, 257, dtype).to(at::kDouble);
    }
    at::Tensor x = part_of(rank_, 257, dtype);
    comm_->all_reduce(x, "x");
    EXPECT_TRUE(x.equal(exact.to(at::kFloat).to(dtype)) ||
                x.to(at::kDouble).allclose(exact, dtype == at::kHalf ? 5e-4 : 4e-3, 1e-6));
    at::Tensor full = part_of(rank_, 5 * size_, dtype);
    at::Tensor shard = at::empty({5}, dtype);
    comm_->reduce_scatter(full, shard, "x");
    at::Tensor sum = at::zeros({5 * size_});
    for (int r = 0; r < size_; ++r) {
      sum += part_of(r, 5 * size_, dtype).to(at::kFloat);
    }
    EXPECT_TRUE(shard.to(at::kFloat).allclose(sum.slice(0, 5 * rank_, 5 * rank_ + 5), 4e-3, 1e-3));
  }
}

TEST_P(Collectives, AllGatherConcatenatesInRankOrder) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble, at::kChar}) {
    at::Tensor full = at::empty({size_, 7}, dtype);
    comm_->all_gather(part_of(rank_, 7, dtype), full, "x");
    for (int r = 0; r < size_; ++r) {
      EXPECT_TRUE(full[r].equal(part_of(r, 7, dtype))) << c10::toString(dtype);
    }
  }
}

TEST_P(Collectives, ReduceScatterGivesEachRankItsSliceOfTheSum) {
  const int64_t n = 7;
  at::Tensor expected = at::zeros({n});
  for (int r = 0; r < size_; ++r) {
    expected += part_of(r, n * size_).slice(0, n * rank_, n * (rank_ + 1));
  }
  at::Tensor shard = at::empty({n});
  comm_->reduce_scatter(part_of(rank_, n * size_), shard, "x");
  EXPECT_TRUE(shard.allclose(expected, 1e-6, 1e-6));
}

TEST_P(Collectives, AllToAllMovesUnequalCounts) {
  // Rank a sends b + 2a elements to rank b: some are zero.
  const auto count = [](int from, int to) { return int64_t{to} + 2 * from; };
  std::vector<int64_t> send_counts, recv_counts;
  std::vector<at::Tensor> send, expected;
  for (int r = 0; r < size_; ++r) {
    send_counts.push_back(count(rank_, r));
    recv_counts.push_back(count(r, rank_));
    send.push_back(at::full({count(rank_, r)}, 10.0 * rank_ + r));
    expected.push_back(at::full({count(r, rank_)}, 10.0 * r + rank_));
  }
  at::Tensor received = at::empty({at::cat(expected).numel()});
  comm_->all_to_all(at::cat(send), send_counts, received, recv_counts, "x");
  EXPECT_TRUE(received.equal(at::cat(expected)));
}

TEST_P(Collectives, StartedCollectivesOverlapAndEndInAnyOrder) {
  std::vector<at::Tensor> tensors;
  std::vector<std::unique_ptr<Work>> works;
  for (int i = 0; i < 5; ++i) {
    tensors.push_back(at::full({20}, rank_ + 10.0 * i));
    works.push_back(comm_->all_reduce_async(tensors.back(), "x"));
  }
  const double ranks = size_ * (size_ - 1) / 2.0;
  for (int i = 4; i >= 0; --i) {
    works[static_cast<size_t>(i)]->wait();
    EXPECT_TRUE(works[static_cast<size_t>(i)]->test());
    EXPECT_EQ(tensors[static_cast<size_t>(i)][7].item<double>(), ranks + 10.0 * i * size_);
  }
}

TEST_P(Collectives, AnUnwaitedHandleCompletesWhenItEnds) {
  at::Tensor x = at::full({4}, 1.0);
  { const auto work = comm_->all_reduce_async(x, "x"); }
  EXPECT_EQ(x[0].item<double>(), size_);
}

TEST_P(Collectives, EmptyTensorsTakePart) {
  at::Tensor empty = at::empty({0});
  comm_->broadcast(empty, 0, "x");
  comm_->all_reduce(empty, "x");
  comm_->all_gather(empty, at::empty({0}), "x");
  comm_->reduce_scatter(empty, at::empty({0}), "x");
  comm_->barrier("x");
}

TEST_P(Collectives, ScalarsAndStringsAreShared) {
  EXPECT_EQ(comm_->all_reduce_max(-5.0 + rank_, "x"), -5.0 + size_ - 1);
  EXPECT_EQ(comm_->all_reduce_sum(0.5, "x"), 0.5 * size_);
  EXPECT_EQ(comm_->broadcast_string(fmt::format("from {}", rank_), size_ - 1, "x"),
            fmt::format("from {}", size_ - 1));
  EXPECT_EQ(comm_->broadcast_string("", 0, "x"), "");
}

TEST_P(Collectives, BadArgumentsAreErrorsBeforeAnythingIsSent) {
  const at::Tensor x = at::ones({4, 4});
  EXPECT_THAT(error_of([&] { comm_->all_reduce(x.t().slice(0, 0, 2), "g"); }),
              HasSubstr("all_reduce 'g': the tensor is not contiguous"));
  EXPECT_THAT(error_of([&] { comm_->all_reduce(at::Tensor(), "g"); }), HasSubstr("undefined"));
  EXPECT_THAT(error_of([&] { comm_->broadcast(x, size_, "g"); }), HasSubstr("root"));
  EXPECT_THAT(error_of([&] { comm_->all_gather(x, at::empty({16 * size_ + 1}), "g"); }),
              HasSubstr("all_gather 'g': full holds"));
  EXPECT_THAT(error_of([&] { comm_->all_gather(x, at::empty({16 * size_}, at::kLong), "g"); }),
              HasSubstr("shard is Float, full is Long"));
  EXPECT_THAT(error_of([&] {
                comm_->all_to_all(x, {16, 0, 0, 0, 0}, x, {16}, "g");
              }),
              HasSubstr("5 counts for"));
  std::vector<int64_t> counts(static_cast<size_t>(size_), 0);
  EXPECT_THAT(error_of([&] { comm_->all_to_all(x, counts, x, counts, "g"); }),
              HasSubstr("counts add up to 0"));
  EXPECT_THAT(error_of([&] { comm_->all_reduce(at::empty({2}, at::kMeta), "g"); }),
              HasSubstr("MPI moves CPU tensors"));
  comm_->barrier("still in step");
}

INSTANTIATE_TEST_SUITE_P(Backends, Collectives,
                         ::testing::Values(Kind{"Self", self}, Kind{"Mpi", mpi},
                                           Kind{"SplitMessages", split_messages}),
                         [](const auto& kind) { return kind.param.name; });

TEST(MpiCommunicator, SplitKeepsTheOrderOfRanks) {
  const auto world = testing::world().communicator();
  const auto half = world->split(world->rank() % 2);
  EXPECT_EQ(half->rank(), world->rank() / 2);
  EXPECT_EQ(half->size(), (world->size() + 1 - world->rank() % 2) / 2);
  EXPECT_EQ(half->all_reduce_max(world->rank() % 2, "color"), world->rank() % 2);
  EXPECT_THAT(error_of([&] { (void)world->split(-1); }), HasSubstr("color -1"));
}

TEST(MpiCommunicator, TheOrderCheckFindsARankThatCalledSomethingElse) {
  const auto world = testing::world().communicator();
  const auto group = world->split(0);
  group->barrier("same");
  group->check_order();
  group->barrier(world->rank() == 1 ? "other" : "same");
  const bool several = world->size() > 1;
  EXPECT_THAT(error_of([&] { group->check_order(); }),
              HasSubstr(several ? "rank 1 made other collective calls" : "nothing was thrown"));
}

TEST(MpiCommunicator, AMessageOfAnotherSizeThanExpectedIsAnError) {
  const auto world = testing::world().communicator();
  const auto group = world->split(0);
  // Every rank sends one element to itself but says it expects none from itself in two parts.
  std::vector<int64_t> one(static_cast<size_t>(group->size()), 0);
  one[static_cast<size_t>(group->rank())] = 1;
  std::vector<int64_t> two = one;
  two[static_cast<size_t>(group->rank())] = 2;
  EXPECT_THAT(
      error_of([&] { group->all_to_all(at::ones({1}), one, at::empty({2}), two, "sizes"); }),
      HasSubstr("all_to_all 'sizes': received 4 bytes, expected 8"));
}

TEST(World, KnowsItsPlaceOnTheHost) {
  // The tests run on one machine.
  EXPECT_EQ(testing::world().local_rank(), testing::world().rank());
  EXPECT_EQ(testing::world().local_size(), testing::world().size());
  EXPECT_NE(mpi_handle(*testing::world().communicator()), MPI_COMM_NULL);
  EXPECT_EQ(mpi_handle(*self_communicator()), MPI_COMM_SELF);
}

}  // namespace
}  // namespace minwm::comm
