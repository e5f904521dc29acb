// libminwm_nccl.so: collectives on CUDA tensors.

#include <array>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include "checks.h"
#include "nccl_operation.h"
#include "progress.h"

namespace minwm::comm {
namespace {

ncclDataType_t sum_type(at::ScalarType dtype, const char* op, std::string_view what) {
  switch (dtype) {
    case at::kFloat:
      return ncclFloat32;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kHalf:
      return ncclFloat16;
    case at::kDouble:
      return ncclFloat64;
    case at::kLong:
      return ncclInt64;
    case at::kInt:
      return ncclInt32;
    case at::kChar:
      return ncclInt8;
    case at::kByte:
      return ncclUint8;
    default:
      fail("{} '{}': {} cannot be summed", op, what, c10::toString(dtype));
  }
}

std::shared_ptr<Group> make_group(const NcclSetup& setup) {
  auto group = std::make_shared<Group>();
  if (setup.watched.group) {
    static std::atomic<uint64_t> made{0};
    group->id = setup.watched.group->id ^ (++made << 48);
    group->world_ranks = setup.watched.group->world_ranks;
    setup.watched.progress->watch(group);
  }
  return group;
}

class NcclCommunicator : public Communicator {
 public:
  explicit NcclCommunicator(const NcclSetup& setup)
      : setup_(setup),
        group_(make_group(setup)),
        line_(std::make_shared<Line>(
            setup, setup.watched.progress ? setup.watched.progress->timeout() : 600)),
        one_(at::zeros({1}, at::TensorOptions(setup.device).dtype(at::kFloat))) {}
  int rank() const override { return setup_.mpi->rank(); }
  int size() const override { return setup_.mpi->size(); }
  void set_timeout(double seconds) override { setup_.mpi->set_timeout(seconds); }
  uint64_t ledger() const override { return group_->ledger.hash(); }
  int64_t bytes_sent() const override { return group_->bytes_sent; }
  std::shared_ptr<Communicator> split(int color) override {
    return setup_.make(setup_.mpi->split(color), setup_.device);
  }

  std::unique_ptr<Work> broadcast_async(at::Tensor inout, int root, CallSite what) override {
    check_tensor(inout, "broadcast", what, at::kCUDA);
    check_root(root, size(), "broadcast", what);
    return run("broadcast", what, {inout}, share(inout), [&](cudaStream_t stream) {
      return ncclBroadcast(inout.const_data_ptr(), inout.mutable_data_ptr(), inout.nbytes(),
                           ncclUint8, root, line_->comm(), stream);
    });
  }

  std::unique_ptr<Work> all_reduce_async(at::Tensor inout, CallSite what) override {
    check_tensor(inout, "all_reduce", what, at::kCUDA);
    const ncclDataType_t type = sum_type(inout.scalar_type(), "all_reduce", what);
    return run("all_reduce", what, {inout}, 2 * share(inout), [&](cudaStream_t stream) {
      return ncclAllReduce(inout.const_data_ptr(), inout.mutable_data_ptr(), count(inout), type,
                           ncclSum, line_->comm(), stream);
    });
  }

  std::unique_ptr<Work> all_gather_async(const at::Tensor& shard, at::Tensor full,
                                         CallSite what) override {
    check_shard(shard, full, size(), "all_gather", what, at::kCUDA);
    return run("all_gather", what, {shard, full}, share(full), [&](cudaStream_t stream) {
      return ncclAllGather(shard.const_data_ptr(), full.mutable_data_ptr(), shard.nbytes(),
                           ncclUint8, line_->comm(), stream);
    });
  }

  std::unique_ptr<Work> reduce_scatter_async(const at::Tensor& full, at::Tensor shard,
                                             CallSite what) override {
    check_shard(shard, full, size(), "reduce_scatter", what, at::kCUDA);
    const ncclDataType_t type = sum_type(full.scalar_type(), "reduce_scatter", what);
    return run("reduce_scatter", what, {shard, full}, share(full), [&](cudaStream_t stream) {
      return ncclReduceScatter(full.const_data_ptr(), shard.mutable_data_ptr(), count(shard), type,
                               ncclSum, line_->comm(), stream);
    });
  }

  std::unique_ptr<Work> all_to_all_async(const at::Tensor& send,
                                         const std::vector<int64_t>& send_counts, at::Tensor recv,
                                         const std::vector<int64_t>& recv_counts,
                                         CallSite what) override;
  std::unique_ptr<Work> ring_shift_async(const std::vector<at::Tensor>& send,
                                         const std::vector<at::Tensor>& recv,
                                         CallSite what) override;

  void barrier(CallSite what) override {
    const auto work = all_reduce_async(one_, what);
    while (!work->test()) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 protected:
  Communicator& host() override { return *setup_.mpi; }

 private:
  static size_t count(const at::Tensor& tensor) { return static_cast<size_t>(tensor.numel()); }
  /// What a ring sends per rank of a buffer that all ranks end up with, or start from.
  int64_t share(const at::Tensor& whole) const {
    return static_cast<int64_t>(whole.nbytes()) * (size() - 1) / size();
  }

  /// Puts `call` into the stream, behind what the caller's stream holds now.
  template <class Enqueue>
  std::unique_ptr<Work> run(const char* op, const CallSite& what, std::vector<at::Tensor> buffers,
                            int64_t sent, const Enqueue& enqueue) {
    const at::Tensor& first = buffers.empty() ? one_ : buffers.front();
    const bool equal_sizes = std::strcmp(op, "all_to_all") != 0;
    auto operation = std::make_shared<NcclOperation>(
        group_->ledger.add(op, what, first.nbytes(), equal_sizes ? first.nbytes() : 0,
                           first.scalar_type()),
        group_, line_);
    const c10::cuda::CUDAStream stream = line_->stream();
    const c10::cuda::CUDAGuard guard(stream.device_index());
    c10::cuda::CUDAEvent ready(cudaEventDisableTiming);
    const c10::cuda::CUDAStream caller = c10::cuda::getCurrentCUDAStream(stream.device_index());
    ready.record(caller);
    ready.block(stream);
    check_nccl(enqueue(stream.stream()), op, what.what);
    line_->settle(op, what.what);
    operation->record();
    group_->bytes_sent += sent;
    if (setup_.watched.progress) {
      setup_.watched.progress->add(operation);
    }
    return std::make_unique<NcclWork>(std::move(operation), std::move(buffers), caller);
  }

  NcclSetup setup_;
  std::shared_ptr<Group> group_;
  std::shared_ptr<Line> line_;
  at::Tensor one_;  // of barriers
};

std::unique_ptr<Work> NcclCommunicator::all_to_all_async(const at::Tensor& send,
                                                         const std::vector<int64_t>& send_counts,
                                                         at::Tensor recv,
                                                         const std::vector<int64_t>& recv_counts,
                                                         CallSite what) {
  check_counts(send, send_counts, size(), "all_to_all", what, at::kCUDA);
  check_counts(recv, recv_counts, size(), "all_to_all", what, at::kCUDA);
  require(send.scalar_type() == recv.scalar_type(), "all_to_all '{}': sends {}, receives {}",
          what.what, c10::toString(send.scalar_type()), c10::toString(recv.scalar_type()));
  const size_t width = send.element_size();
  const auto own = static_cast<size_t>(rank());
  const auto sent =
      static_cast<int64_t>(send.nbytes()) - send_counts[own] * static_cast<int64_t>(width);
  return run("all_to_all", what, {send, recv}, sent, [&](cudaStream_t stream) {
    check_nccl(ncclGroupStart(), "ncclGroupStart", what.what);
    const char* from = static_cast<const char*>(send.const_data_ptr());
    char* to = static_cast<char*>(recv.mutable_data_ptr());
    for (int peer = 0; peer < size(); ++peer) {
      const size_t send_bytes = static_cast<size_t>(send_counts[static_cast<size_t>(peer)]) * width;
      const size_t recv_bytes = static_cast<size_t>(recv_counts[static_cast<size_t>(peer)]) * width;
      if (send_bytes > 0) {
        check_nccl(ncclSend(from, send_bytes, ncclUint8, peer, line_->comm(), stream), "ncclSend",
                   what.what);
      }
      if (recv_bytes > 0) {
        check_nccl(ncclRecv(to, recv_bytes, ncclUint8, peer, line_->comm(), stream), "ncclRecv",
                   what.what);
      }
      from += send_bytes;
      to += recv_bytes;
    }
    return ncclGroupEnd();
  });
}

std::unique_ptr<Work> NcclCommunicator::ring_shift_async(const std::vector<at::Tensor>& send,
                                                         const std::vector<at::Tensor>& recv,
                                                         CallSite what) {
  check_ring(send, recv, "ring_shift", what, at::kCUDA);
  const int next = (rank() + 1) % size(), previous = (rank() + size() - 1) % size();
  std::vector<at::Tensor> buffers = send;
  buffers.insert(buffers.end(), recv.begin(), recv.end());
  int64_t sent = 0;
  for (const at::Tensor& tensor : send) {
    sent += next == rank() ? 0 : static_cast<int64_t>(tensor.nbytes());
  }
  return run("ring_shift", what, std::move(buffers), sent, [&](cudaStream_t stream) {
    check_nccl(ncclGroupStart(), "ncclGroupStart", what.what);
    for (size_t i = 0; i < send.size(); ++i) {
      if (send[i].numel() == 0) {
        continue;
      }
      check_nccl(ncclSend(send[i].const_data_ptr(), send[i].nbytes(), ncclUint8, next,
                          line_->comm(), stream),
                 "ncclSend", what.what);
      check_nccl(ncclRecv(recv[i].mutable_data_ptr(), recv[i].nbytes(), ncclUint8, previous,
                          line_->comm(), stream),
                 "ncclRecv", what.what);
    }
    return ncclGroupEnd();
  });
}

}  // namespace
}  // namespace minwm::comm

extern "C" {

__attribute__((visibility("default"))) std::shared_ptr<minwm::comm::Communicator>* minwm_make_nccl(
    const minwm::comm::NcclSetup& setup) {
  const c10::cuda::CUDAGuard guard(setup.device.index());
  return new std::shared_ptr<minwm::comm::Communicator>(
      std::make_shared<minwm::comm::NcclCommunicator>(setup));
}

__attribute__((visibility("default"))) int minwm_nccl_version() {
  int version = 0;
  ncclGetVersion(&version);
  return version;
}
}
