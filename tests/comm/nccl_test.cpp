// NCCL's collectives against their definitions. Needs as many GPUs as ranks.

#include "minwm/comm/nccl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/comm/mesh.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/parallel/context.h"
#include "mpi_test.h"

namespace minwm::comm {
namespace {

using ::testing::HasSubstr;

class Nccl : public ::testing::Test {
 protected:
  void SetUp() override {
    static std::string reason;
    static const auto device = []() -> std::optional<c10::Device> {
      try {
        return open_device("cuda", testing::world().local_rank());
      } catch (const Error& error) {
        reason = error.what();
        return std::nullopt;
      }
    }();
    const auto world = testing::world().communicator();
    // Skipped on all ranks or on none.
    if (world->all_reduce_max(device ? 0 : 1, "skip") > 0) {
      GTEST_SKIP() << (reason.empty() ? "another rank has no GPU" : reason);
    }
    static const auto shared = make_nccl_communicator(world, *device);
    comm_ = shared;
    device_ = *device;
    rank_ = comm_->rank();
    size_ = comm_->size();
  }
  /// What rank `r` brings, on this rank's GPU.
  at::Tensor part_of(int r, int64_t n, at::ScalarType dtype = at::kFloat) const {
    const RandomKey key{.seed = 1, .purpose = "nccl.test", .sample = static_cast<uint64_t>(r)};
    return random_normal({n}, key).mul(8).round().to(dtype).to(device_);
  }
  at::Tensor sum_of(int64_t n, at::ScalarType dtype) const {
    at::Tensor sum = part_of(0, n, dtype).clone();
    for (int r = 1; r < size_; ++r) {
      sum += part_of(r, n, dtype);
    }
    return sum;
  }
  std::shared_ptr<Communicator> comm_;
  c10::Device device_{c10::kCPU};
  int rank_ = 0, size_ = 1;
};

TEST_F(Nccl, BroadcastCopiesTheRoot) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kBool, at::kLong}) {
    at::Tensor x = part_of(rank_, 1000, dtype);
    comm_->broadcast(x, size_ - 1, "x");
    EXPECT_TRUE(x.equal(part_of(size_ - 1, 1000, dtype))) << c10::toString(dtype);
  }
}

TEST_F(Nccl, SumsAreRight) {
  // Small whole numbers: exact in bf16.
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble, at::kLong}) {
    const int64_t n = 1000 * size_;
    at::Tensor x = part_of(rank_, n, dtype);
    comm_->all_reduce(x, "x");
    EXPECT_TRUE(x.equal(sum_of(n, dtype))) << c10::toString(dtype);
    at::Tensor shard = at::empty({1000}, x.options());
    comm_->reduce_scatter(part_of(rank_, n, dtype), shard, "x");
    EXPECT_TRUE(shard.equal(sum_of(n, dtype).narrow(0, 1000 * rank_, 1000)))
        << c10::toString(dtype);
  }
}

TEST_F(Nccl, AllGatherConcatenatesInRankOrder) {
  at::Tensor full = at::empty({size_, 1000}, at::TensorOptions(device_).dtype(at::kBFloat16));
  comm_->all_gather(part_of(rank_, 1000, at::kBFloat16), full, "x");
  for (int r = 0; r < size_; ++r) {
    EXPECT_TRUE(full[r].equal(part_of(r, 1000, at::kBFloat16)));
  }
}

TEST_F(Nccl, AllToAllAndRingShiftMoveTheRightParts) {
  std::vector<int64_t> send_counts, recv_counts;
  std::vector<at::Tensor> send, expected;
  for (int r = 0; r < size_; ++r) {
    send_counts.push_back(r + 2 * rank_);
    recv_counts.push_back(rank_ + 2 * r);
    send.push_back(at::full({r + 2 * rank_}, 10.0 * rank_ + r, device_));
    expected.push_back(at::full({rank_ + 2 * r}, 10.0 * r + rank_, device_));
  }
  at::Tensor received = at::empty({at::cat(expected).numel()}, device_);
  comm_->all_to_all(at::cat(send), send_counts, received, recv_counts, "x");
  EXPECT_TRUE(received.equal(at::cat(expected)));
  const std::vector<at::Tensor> kv = {part_of(rank_, 100), part_of(rank_, 70, at::kBFloat16)};
  const std::vector<at::Tensor> next = {at::empty_like(kv[0]), at::empty_like(kv[1])};
  comm_->ring_shift_async(kv, next, "kv")->wait();
  const int previous = (rank_ + size_ - 1) % size_;
  EXPECT_TRUE(next[0].equal(part_of(previous, 100)));
  EXPECT_TRUE(next[1].equal(part_of(previous, 70, at::kBFloat16)));
}

TEST_F(Nccl, WorkIsOrderedByStreams) {
  // The input is still being computed when the collective starts; wait() does not block the CPU.
  at::Tensor x = at::ones({1 << 20}, device_);
  for (int i = 0; i < 100; ++i) {
    x = x * 2 - 1;
  }
  const auto work = comm_->all_reduce_async(x, "x");
  work->wait();
  EXPECT_TRUE((x + 1).eq(size_ + 1).all().item<bool>());
  comm_->barrier("done");
  EXPECT_TRUE(work->test());
}

TEST_F(Nccl, NumbersStringsSplitsAndTheOrderCheckWork) {
  EXPECT_EQ(comm_->all_reduce_max(rank_, "x"), size_ - 1);
  EXPECT_EQ(comm_->broadcast_string("weights", 0, "x"), "weights");
  const auto alone = comm_->split(rank_);
  EXPECT_EQ(alone->size(), 1);
  at::Tensor x = part_of(rank_, 10);
  alone->all_reduce(x, "x");
  EXPECT_TRUE(x.equal(part_of(rank_, 10)));
  comm_->check_order();
  EXPECT_EQ(alone->bytes_sent(), 0);
  const int64_t before = comm_->bytes_sent();
  at::Tensor sum = part_of(rank_, 1000 * size_);
  comm_->all_reduce(sum, "x");
  // Each way round, every rank sends all slices but one.
  EXPECT_EQ(comm_->bytes_sent() - before, 2 * 4 * 1000 * (size_ - 1));
}

TEST_F(Nccl, MemoryOfAWaitedCollectiveIsUsedAgainAtOnce) {
  // The collective is still queued behind the products when its buffer is freed.
  const at::Tensor matrix = at::ones({2048, 2048}, device_);
  at::Tensor product = matrix;
  comm_->all_reduce(part_of(rank_, 10), "warm");
  for (int i = 0; i < 50; ++i) {
    product = product.matmul(matrix) / 2048;
  }
  at::Tensor sum = at::ones({1 << 20}, device_);
  const void* const memory = sum.const_data_ptr();
  comm_->all_reduce_async(sum, "x")->wait();
  const at::Tensor result = sum + 1;
  sum.reset();
  const at::Tensor next = at::zeros({1 << 20}, device_);
  EXPECT_EQ(next.const_data_ptr(), memory);
  EXPECT_TRUE(result.eq(size_ + 1).all().item<bool>());
  EXPECT_TRUE(next.eq(0).all().item<bool>());
}

TEST_F(Nccl, AHandleDroppedEarlyKeepsTheBuffersUntilTheEnd) {
  at::Tensor full = at::empty({size_, 1 << 20}, device_);
  (void)comm_->all_gather_async(at::full({1 << 20}, rank_ + 1.0, device_), full, "x");
  // Would take the memory of what was just gathered.
  const at::Tensor next = at::zeros({1 << 20}, device_);
  for (int r = 0; r < size_; ++r) {
    EXPECT_TRUE(full[r].eq(r + 1).all().item<bool>());
  }
}

TEST_F(Nccl, TheDeviceMeshReplacesWhatMovesTensors) {
  const Mesh mesh = make_mesh(testing::world().communicator(), {.shard = size_, .timeout = 30});
  const Mesh on_gpu = make_device_mesh(mesh, device_);
  EXPECT_EQ(on_gpu.data, mesh.data);
  EXPECT_NE(on_gpu.parameters, mesh.parameters);
  EXPECT_EQ(on_gpu.world, mesh.world);
  at::Tensor x = part_of(rank_, 1000);
  on_gpu.gradients->all_reduce(x, "x");
  EXPECT_TRUE(x.equal(sum_of(1000, at::kFloat)));
}

TEST_F(Nccl, AContextOnTheDeviceMeshGathersCudaTensors) {
  const Mesh on_gpu = make_device_mesh(
      make_mesh(testing::world().communicator(), {.replicate = 1, .context = size_, .timeout = 30}),
      device_);
  const parallel::Context context(on_gpu);
  const at::Tensor whole = part_of(0, 24).view({1, 24});
  const auto rows = context.rows(24);
  const at::Tensor mine = whole.narrow(1, rows.begin, rows.count).contiguous();
  EXPECT_TRUE(context.gather(mine, 1, 24).equal(whole));
  EXPECT_EQ(on_gpu.context->all_reduce_max(rank_, "numbers stay on the CPU"), size_ - 1);
}

TEST_F(Nccl, CpuTensorsAreRefused) {
  try {
    comm_->all_reduce(at::ones({2}), "g");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("all_reduce 'g': NCCL moves CUDA tensors"));
  }
}

}  // namespace
}  // namespace minwm::comm
