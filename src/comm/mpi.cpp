// Collectives on CPU tensors over MPI.

#include "minwm/comm/mpi.h"

#include <cstring>
#include <utility>

#include <ATen/ATen.h>

#include "checks.h"
#include "mpi_communicator.h"
#include "work.h"

namespace minwm::comm {

void check_mpi(int code, const char* call) {
  if (code != MPI_SUCCESS) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(fmt::format("{}: {}", call, std::string(text, static_cast<size_t>(length))),
                kExitFailure);
  }
}

namespace {

/// The MPI type that sums `dtype`; bf16 and fp16 are widened before they come here.
MPI_Datatype sum_type(at::ScalarType dtype, const char* op, std::string_view what) {
  switch (dtype) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kLong:
      return MPI_INT64_T;
    case at::kInt:
      return MPI_INT32_T;
    case at::kShort:
      return MPI_INT16_T;
    case at::kChar:
      return MPI_INT8_T;
    case at::kByte:
      return MPI_UINT8_T;
    default:
      fail("{} '{}': {} cannot be summed", op, what, c10::toString(dtype));
  }
}

/// An opaque MPI type as wide as one element, for calls that only move data.
MPI_Datatype move_type(const at::Tensor& tensor, const char* op, std::string_view what) {
  switch (tensor.element_size()) {
    case 1:
      return MPI_BYTE;
    case 2:
      return MPI_UINT16_T;
    case 4:
      return MPI_UINT32_T;
    case 8:
      return MPI_UINT64_T;
    default:
      fail("{} '{}': elements of {} bytes are not supported", op, what, tensor.element_size());
  }
}

bool is_half(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
}

char* bytes_at(const at::Tensor& tensor, int64_t element) {
  return static_cast<char*>(tensor.mutable_data_ptr()) +
         element * static_cast<int64_t>(tensor.element_size());
}

const char* const_bytes_at(const at::Tensor& tensor, int64_t element) {
  return static_cast<const char*>(tensor.const_data_ptr()) +
         element * static_cast<int64_t>(tensor.element_size());
}

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm handle, int64_t max_count, std::shared_ptr<Deadline> deadline)
      : handle_(handle), max_count_(max_count), deadline_(std::move(deadline)) {
    check_mpi(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(handle, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(handle, &size_), "MPI_Comm_size");
  }
  MPI_Comm handle() const { return handle_; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void set_timeout(double seconds) override { deadline_->seconds = seconds; }
  uint64_t ledger() const override { return ledger_->hash(); }

  std::unique_ptr<Work> broadcast_async(at::Tensor inout, int root, CallSite what) override;
  std::unique_ptr<Work> all_reduce_async(at::Tensor inout, CallSite what) override;
  std::unique_ptr<Work> all_gather_async(const at::Tensor& shard, at::Tensor full,
                                         CallSite what) override;
  std::unique_ptr<Work> reduce_scatter_async(const at::Tensor& full, at::Tensor shard,
                                             CallSite what) override;
  std::unique_ptr<Work> all_to_all_async(const at::Tensor& send,
                                         const std::vector<int64_t>& send_counts, at::Tensor recv,
                                         const std::vector<int64_t>& recv_counts,
                                         CallSite what) override;
  std::unique_ptr<Work> ring_shift_async(const std::vector<at::Tensor>& send,
                                         const std::vector<at::Tensor>& recv,
                                         CallSite what) override;
  int64_t bytes_sent() const override { return bytes_sent_; }
  void barrier(CallSite what) override;
  std::shared_ptr<Communicator> split(int color) override;

 private:
  std::unique_ptr<MpiWork> start(const char* op, std::string_view what, const at::Tensor& tensor) {
    // all_to_all sizes differ between ranks by right: only their dtype is part of the order.
    const bool equal_sizes = std::strcmp(op, "all_to_all") != 0;
    const uint64_t sequence =
        ledger_->add(op, what, equal_sizes ? tensor.nbytes() : 0, tensor.scalar_type());
    return std::make_unique<MpiWork>(op, what, sequence, deadline_, ledger_);
  }

  /// Calls action(first element, count) for each part that fits an MPI count; at least once, so
  /// that empty tensors take part in the order too.
  template <class Action>
  void for_parts(int64_t numel, const Action& action) const {
    int64_t begin = 0;
    do {
      const int64_t count = std::min(max_count_, numel - begin);
      action(begin, static_cast<int>(count));
      begin += count;
    } while (begin < numel);
  }

  MPI_Comm handle_;
  int64_t max_count_;
  std::shared_ptr<Deadline> deadline_;
  std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
  int rank_ = 0, size_ = 1;
  int64_t bytes_sent_ = 0;
};

std::unique_ptr<Work> MpiCommunicator::broadcast_async(at::Tensor inout, int root,
                                                       CallSite what) {
  check_tensor(inout, "broadcast", what);
  check_root(root, size_, "broadcast", what);
  const MPI_Datatype type = move_type(inout, "broadcast", what);
  auto work = start("broadcast", what, inout);
  work->keep(inout);
  for_parts(inout.numel(), [&](int64_t begin, int count) {
    check_mpi(MPI_Ibcast(bytes_at(inout, begin), count, type, root, handle_, work->request()),
              "MPI_Ibcast");
  });
  return work;
}

std::unique_ptr<Work> MpiCommunicator::all_reduce_async(at::Tensor inout, CallSite what) {
  check_tensor(inout, "all_reduce", what);
  const at::Tensor sum = is_half(inout) ? inout.detach().to(at::kFloat) : inout.detach();
  const MPI_Datatype type = sum_type(sum.scalar_type(), "all_reduce", what);
  auto work = start("all_reduce", what, inout);
  work->keep(sum);
  for_parts(sum.numel(), [&](int64_t begin, int count) {
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, bytes_at(sum, begin), count, type, MPI_SUM, handle_,
                             work->request()),
              "MPI_Iallreduce");
  });
  if (is_half(inout)) {
    work->then([sum, target = inout.detach()] { target.copy_(sum); });
  }
  return work;
}

std::unique_ptr<Work> MpiCommunicator::all_gather_async(const at::Tensor& shard, at::Tensor full,
                                                        CallSite what) {
  check_shard(shard, full, size_, "all_gather", what);
  const MPI_Datatype type = move_type(shard, "all_gather", what);
  auto work = start("all_gather", what, shard);
  work->keep(shard);
  work->keep(full);
  for_parts(shard.numel(), [&](int64_t begin, int count) {
    // One received block is `count` elements, and the next rank's starts a whole shard later.
    MPI_Datatype block = MPI_DATATYPE_NULL;
    MPI_Datatype strided = MPI_DATATYPE_NULL;
    check_mpi(MPI_Type_contiguous(count, type, &block), "MPI_Type_contiguous");
    check_mpi(MPI_Type_create_resized(block, 0, static_cast<MPI_Aint>(shard.nbytes()), &strided),
              "MPI_Type_create_resized");
    check_mpi(MPI_Type_commit(&strided), "MPI_Type_commit");
    const int code = MPI_Iallgather(const_bytes_at(shard, begin), count, type,
                                    bytes_at(full, begin), 1, strided, handle_, work->request());
    // MPI keeps a freed type until the calls that use it are complete.
    MPI_Type_free(&strided);
    MPI_Type_free(&block);
    check_mpi(code, "MPI_Iallgather");
  });
  return work;
}

std::unique_ptr<Work> MpiCommunicator::reduce_scatter_async(const at::Tensor& full,
                                                            at::Tensor shard,
                                                            CallSite what) {
  check_shard(shard, full, size_, "reduce_scatter", what);
  const bool half = is_half(full);
  const at::Tensor from = half ? full.detach().to(at::kFloat) : full.detach();
  const at::Tensor to = half ? at::empty(shard.sizes(), at::kFloat) : shard.detach();
  const MPI_Datatype type = sum_type(from.scalar_type(), "reduce_scatter", what);
  auto work = start("reduce_scatter", what, shard);
  work->keep(from);
  work->keep(to);
  if (shard.numel() <= max_count_) {
    check_mpi(MPI_Ireduce_scatter_block(const_bytes_at(from, 0), bytes_at(to, 0),
                                        static_cast<int>(shard.numel()), type, MPI_SUM, handle_,
                                        work->request()),
              "MPI_Ireduce_scatter_block");
  } else {
    // Predefined sums take no strided types, so each part of each slice is reduced to its owner.
    for (int owner = 0; owner < size_; ++owner) {
      for_parts(shard.numel(), [&](int64_t begin, int count) {
        check_mpi(MPI_Ireduce(const_bytes_at(from, owner * shard.numel() + begin),
                              owner == rank_ ? bytes_at(to, begin) : nullptr, count, type, MPI_SUM,
                              owner, handle_, work->request()),
                  "MPI_Ireduce");
      });
    }
  }
  if (half) {
    work->then([to, target = shard.detach()] { target.copy_(to); });
  }
  return work;
}

std::unique_ptr<Work> MpiCommunicator::all_to_all_async(const at::Tensor& send,
                                                        const std::vector<int64_t>& send_counts,
                                                        at::Tensor recv,
                                                        const std::vector<int64_t>& recv_counts,
                                                        CallSite what) {
  constexpr int kTag = 1;
  check_counts(send, send_counts, size_, "all_to_all", what);
  check_counts(recv, recv_counts, size_, "all_to_all", what);
  require(send.scalar_type() == recv.scalar_type(), "all_to_all '{}': sends {}, receives {}", what,
          c10::toString(send.scalar_type()), c10::toString(recv.scalar_type()));
  const MPI_Datatype type = move_type(send, "all_to_all", what);
  const auto width = static_cast<int64_t>(send.element_size());
  auto work = start("all_to_all", what, send);
  work->keep(send);
  work->keep(recv);
  // Point to point rather than MPI_Ialltoallv: its displacements are int, and whether a pair's
  // message must be split is known to both of its ends.
  const int64_t most = std::min(max_count_, kMaxCount / width);  // the byte count is an int, too
  const auto parts = [&](int64_t total, const auto& action) {
    for (int64_t begin = 0; begin == 0 || begin < total; begin += most) {
      action(begin, static_cast<int>(std::min(most, total - begin)));
    }
  };
  int64_t offset = 0;
  for (int peer = 0; peer < size_; ++peer) {
    const int64_t total = recv_counts[static_cast<size_t>(peer)];
    parts(total, [&](int64_t begin, int count) {
      check_mpi(MPI_Irecv(bytes_at(recv, offset + begin), count, type, peer, kTag, handle_,
                          work->request()),
                "MPI_Irecv");
      work->expect_bytes(count * static_cast<int>(width));
    });
    offset += total;
  }
  offset = 0;
  for (int step = 0; step < size_; ++step) {
    const int64_t total = send_counts[static_cast<size_t>(step)];
    parts(total, [&](int64_t begin, int count) {
      check_mpi(MPI_Isend(const_bytes_at(send, offset + begin), count, type, step, kTag, handle_,
                          work->request()),
                "MPI_Isend");
    });
    offset += total;
  }
  return work;
}

std::unique_ptr<Work> MpiCommunicator::ring_shift_async(const std::vector<at::Tensor>& send,
                                                        const std::vector<at::Tensor>& recv,
                                                        CallSite what) {
  constexpr int kFirstTag = 2;
  check_ring(send, recv, "ring_shift", what);
  auto work = start("ring_shift", what, send.empty() ? at::empty({0}) : send.front());
  const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
  for (size_t i = 0; i < send.size(); ++i) {
    const int tag = kFirstTag + static_cast<int>(i);
    const MPI_Datatype type = move_type(send[i], "ring_shift", what);
    work->keep(send[i]);
    work->keep(recv[i]);
    for_parts(recv[i].numel(), [&](int64_t begin, int count) {
      check_mpi(MPI_Irecv(bytes_at(recv[i], begin), count, type, previous, tag, handle_,
                          work->request()),
                "MPI_Irecv");
    });
    for_parts(send[i].numel(), [&](int64_t begin, int count) {
      check_mpi(MPI_Isend(const_bytes_at(send[i], begin), count, type, next, tag, handle_,
                          work->request()),
                "MPI_Isend");
    });
  }
  return work;
}

void MpiCommunicator::barrier(CallSite what) {
  auto work = start("barrier", what, at::empty({0}, at::kByte));
  check_mpi(MPI_Ibarrier(handle_, work->request()), "MPI_Ibarrier");
  work->wait();
}

std::shared_ptr<Communicator> MpiCommunicator::split(int color) {
  require(color >= 0, "split: color {}, expected 0 or more", color);
  // MPI_Comm_split cannot be polled: the barrier puts the deadline on ranks that never come.
  barrier("split");
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(handle_, color, rank_, &part), "MPI_Comm_split");
  return std::make_shared<MpiCommunicator>(part, max_count_, deadline_);
}

}  // namespace

std::shared_ptr<Communicator> make_mpi_communicator(MPI_Comm handle, int64_t max_count) {
  return std::make_shared<MpiCommunicator>(handle, max_count, std::make_shared<Deadline>());
}

MPI_Comm mpi_handle(const Communicator& communicator) {
  if (const auto* over_mpi = dynamic_cast<const MpiCommunicator*>(&communicator)) {
    return over_mpi->handle();
  }
  int started = 0;
  check_mpi(MPI_Initialized(&started), "MPI_Initialized");
  require(started != 0, "this needs MPI, which was not started (no comm::World)");
  return MPI_COMM_SELF;
}

}  // namespace minwm::comm
