// Collectives on CPU tensors over MPI.

#include "minwm/comm/mpi.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "checks.h"
#include "exchange.h"
#include "minwm/core/random.h"
#include "mpi_communicator.h"
#include "mpi_operation.h"
#include "progress.h"

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

/// Sums of at least this many bytes are made from messages between pairs of ranks: MPI's
/// non-blocking sum sends the whole buffer over every edge of a tree.
constexpr int64_t kLargeSum = int64_t{64} << 10;

/// The MPI type that sums `dtype` (widened from bf16 and fp16); null if there is none.
MPI_Datatype sum_type(at::ScalarType dtype) {
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
      return MPI_DATATYPE_NULL;
  }
}

void require_summable(at::ScalarType dtype, const char* op, std::string_view what) {
  require(dtype == at::kBFloat16 || dtype == at::kHalf || sum_type(dtype) != MPI_DATATYPE_NULL,
          "{} '{}': {} cannot be summed", op, what, c10::toString(dtype));
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

/// `handle`'s ranks, as numbers in `world`.
std::shared_ptr<Group> make_group(MPI_Comm handle, uint64_t id, MPI_Comm world) {
  auto group = std::make_shared<Group>();
  group->id = id;
  MPI_Group mine = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(handle, &mine), "MPI_Comm_group");
  check_mpi(MPI_Comm_group(world, &all), "MPI_Comm_group");
  int size = 0;
  check_mpi(MPI_Group_size(mine, &size), "MPI_Group_size");
  std::vector<int> ranks(static_cast<size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  group->world_ranks.resize(ranks.size());
  check_mpi(MPI_Group_translate_ranks(mine, size, ranks.data(), all, group->world_ranks.data()),
            "MPI_Group_translate_ranks");
  MPI_Group_free(&mine);
  MPI_Group_free(&all);
  return group;
}

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm handle, int64_t max_count, std::shared_ptr<Progress> progress,
                  std::shared_ptr<Group> group)
      : handle_(handle),
        max_count_(max_count),
        progress_(std::move(progress)),
        group_(std::move(group)) {
    check_mpi(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(handle, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(handle, &size_), "MPI_Comm_size");
    progress_->watch(group_);
  }
  MPI_Comm handle() const { return handle_; }
  const std::shared_ptr<Progress>& progress() const { return progress_; }
  const std::shared_ptr<Group>& group() const { return group_; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void set_timeout(double seconds) override { progress_->set_timeout(seconds); }
  uint64_t ledger() const override { return group_->ledger.hash(); }
  int64_t bytes_sent() const override { return group_->bytes_sent; }

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
  void barrier(CallSite what) override;
  std::shared_ptr<Communicator> split(int color) override;

 private:
  std::shared_ptr<MpiOperation> start(const char* op, const CallSite& what, uint64_t bytes,
                                      at::ScalarType dtype) {
    // all_to_all sizes differ between ranks by right: only their dtype is part of the order.
    const bool equal_sizes = std::strcmp(op, "all_to_all") != 0;
    return std::make_shared<MpiOperation>(
        group_->ledger.add(op, what, bytes, equal_sizes ? bytes : 0, dtype), group_);
  }
  std::shared_ptr<MpiOperation> start(const char* op, const CallSite& what,
                                      const at::Tensor& tensor) {
    return start(op, what, tensor.nbytes(), tensor.scalar_type());
  }
  /// From here on the progress thread or a waiting caller moves it on.
  std::unique_ptr<Work> posted(std::shared_ptr<MpiOperation> operation) {
    return std::make_unique<CpuWork>(std::move(operation), progress_);
  }
  /// Messages of one operation: a tag of its own keeps apart the rows of two that overlap.
  Messages messages(const MpiOperation& operation, const at::Tensor& tensor) const {
    constexpr uint64_t kTags = uint64_t{1} << 20;
    const auto width = static_cast<int64_t>(tensor.element_size());
    const Call& call = operation.call();
    return {.handle = handle_,
            .type = move_type(tensor, call.op, call.what),
            .width = width,
            // The byte count of a message is an int, too.
            .most = std::min(max_count_, kMaxCount / width),
            .tag = static_cast<int>(call.sequence % kTags),
            .rank = rank_};
  }
  /// What an algorithm that sends no more than it must sends per rank.
  void count_share(int64_t bytes) { group_->bytes_sent += bytes * (size_ - 1) / size_; }

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
  std::shared_ptr<Progress> progress_;
  std::shared_ptr<Group> group_;
  int rank_ = 0, size_ = 1;
  uint64_t splits_ = 0;
};

std::unique_ptr<Work> MpiCommunicator::broadcast_async(at::Tensor inout, int root, CallSite what) {
  check_tensor(inout, "broadcast", what);
  check_root(root, size_, "broadcast", what);
  const MPI_Datatype type = move_type(inout, "broadcast", what);
  auto operation = start("broadcast", what, inout);
  operation->keep(inout);
  for_parts(inout.numel(), [&](int64_t begin, int count) {
    check_mpi(MPI_Ibcast(bytes_at(inout, begin), count, type, root, handle_, operation->request()),
              "MPI_Ibcast");
  });
  count_share(static_cast<int64_t>(inout.nbytes()));
  return posted(std::move(operation));
}

std::unique_ptr<Work> MpiCommunicator::all_reduce_async(at::Tensor inout, CallSite what) {
  check_tensor(inout, "all_reduce", what);
  require_summable(inout.scalar_type(), "all_reduce", what);
  auto operation = start("all_reduce", what, inout);
  if (static_cast<int64_t>(inout.nbytes()) >= kLargeSum) {
    const Slices slices = Slices::even(inout.numel(), size_);
    const at::Tensor flat = inout.detach().view({-1});
    const at::Tensor mine = flat.slice(0, slices.begin(rank_), slices.end(rank_));
    const Messages pairs = messages(*operation, inout);
    post_sum_of_slice(*operation, pairs, flat, mine, slices,
                      [raw = operation.get(), pairs, mine, flat, slices] {
                        post_gather_of_slices(*raw, pairs, mine, flat, slices);
                      });
    return posted(std::move(operation));
  }
  const at::Tensor sum = is_half(inout) ? inout.detach().to(at::kFloat) : inout.detach();
  operation->keep(sum);
  for_parts(sum.numel(), [&](int64_t begin, int count) {
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, bytes_at(sum, begin), count, sum_type(sum.scalar_type()),
                             MPI_SUM, handle_, operation->request()),
              "MPI_Iallreduce");
  });
  count_share(2 * static_cast<int64_t>(sum.nbytes()));
  if (is_half(inout)) {
    operation->then([sum, target = inout.detach()] { target.copy_(sum); });
  }
  return posted(std::move(operation));
}

std::unique_ptr<Work> MpiCommunicator::all_gather_async(const at::Tensor& shard, at::Tensor full,
                                                        CallSite what) {
  check_shard(shard, full, size_, "all_gather", what);
  (void)move_type(shard, "all_gather", what);
  auto operation = start("all_gather", what, shard);
  post_gather_of_slices(*operation, messages(*operation, shard), shard, full,
                        Slices::even(full.numel(), size_));
  return posted(std::move(operation));
}

std::unique_ptr<Work> MpiCommunicator::reduce_scatter_async(const at::Tensor& full,
                                                            at::Tensor shard, CallSite what) {
  check_shard(shard, full, size_, "reduce_scatter", what);
  require_summable(full.scalar_type(), "reduce_scatter", what);
  auto operation = start("reduce_scatter", what, shard);
  post_sum_of_slice(*operation, messages(*operation, full), full, shard,
                    Slices::even(full.numel(), size_), nullptr);
  return posted(std::move(operation));
}

std::unique_ptr<Work> MpiCommunicator::all_to_all_async(const at::Tensor& send,
                                                        const std::vector<int64_t>& send_counts,
                                                        at::Tensor recv,
                                                        const std::vector<int64_t>& recv_counts,
                                                        CallSite what) {
  check_counts(send, send_counts, size_, "all_to_all", what);
  check_counts(recv, recv_counts, size_, "all_to_all", what);
  require(send.scalar_type() == recv.scalar_type(), "all_to_all '{}': sends {}, receives {}", what,
          c10::toString(send.scalar_type()), c10::toString(recv.scalar_type()));
  (void)move_type(send, "all_to_all", what);
  auto operation = start("all_to_all", what, send);
  operation->keep(send);
  operation->keep(recv);
  // Point to point rather than MPI_Ialltoallv: its displacements are int, and whether a pair's
  // message must be split is known to both of its ends. Even an empty message is sent, so that
  // counts on which two ranks disagree are an error, not a hang.
  const Messages pairs = messages(*operation, send);
  int64_t offset = 0;
  for (int peer = 0; peer < size_; ++peer) {
    const int64_t end = offset + recv_counts[static_cast<size_t>(peer)];
    pairs.receive(*operation, recv, offset, end, peer, true);
    offset = end;
  }
  offset = 0;
  for (int peer = 0; peer < size_; ++peer) {
    const int64_t end = offset + send_counts[static_cast<size_t>(peer)];
    pairs.send(*operation, send, offset, end, peer, true);
    offset = end;
  }
  return posted(std::move(operation));
}

std::unique_ptr<Work> MpiCommunicator::ring_shift_async(const std::vector<at::Tensor>& send,
                                                        const std::vector<at::Tensor>& recv,
                                                        CallSite what) {
  check_ring(send, recv, "ring_shift", what);
  uint64_t bytes = 0;
  for (const at::Tensor& tensor : send) {
    (void)move_type(tensor, "ring_shift", what);
    bytes += tensor.nbytes();
  }
  auto operation =
      start("ring_shift", what, bytes, send.empty() ? at::kByte : send.front().scalar_type());
  const int next = (rank_ + 1) % size_, previous = (rank_ + size_ - 1) % size_;
  for (size_t i = 0; i < send.size(); ++i) {
    // Messages of one pair and tag arrive in the order in which they were sent.
    const Messages pairs = messages(*operation, send[i]);
    operation->keep(send[i]);
    operation->keep(recv[i]);
    pairs.receive(*operation, recv[i], 0, recv[i].numel(), previous);
    pairs.send(*operation, send[i], 0, send[i].numel(), next);
  }
  return posted(std::move(operation));
}

void MpiCommunicator::barrier(CallSite what) {
  auto operation = start("barrier", what, 0, at::kByte);
  check_mpi(MPI_Ibarrier(handle_, operation->request()), "MPI_Ibarrier");
  posted(std::move(operation))->wait();
}

std::shared_ptr<Communicator> MpiCommunicator::split(int color) {
  require(color >= 0, "split: color {}, expected 0 or more", color);
  // MPI_Comm_split cannot be polled: the barrier puts the deadline on ranks that never come.
  barrier("split");
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(handle_, color, rank_, &part), "MPI_Comm_split");
  const uint64_t id = mix64(mix64(group_->id ^ ++splits_) ^ static_cast<uint64_t>(color));
  return std::make_shared<MpiCommunicator>(part, max_count_, progress_,
                                           make_group(part, id, progress_->world()));
}

}  // namespace

std::shared_ptr<Communicator> make_mpi_communicator(MPI_Comm handle,
                                                    std::shared_ptr<Progress> progress) {
  constexpr uint64_t kWorldGroup = 1;
  auto group = make_group(handle, kWorldGroup, progress->world());
  return std::make_shared<MpiCommunicator>(handle, kMaxCount, std::move(progress),
                                           std::move(group));
}

std::shared_ptr<Communicator> with_max_count(const Communicator& communicator, int64_t max_count) {
  const auto& over_mpi = dynamic_cast<const MpiCommunicator&>(communicator);
  return std::make_shared<MpiCommunicator>(over_mpi.handle(), max_count, over_mpi.progress(),
                                           over_mpi.group());
}

Watched watched(const Communicator& communicator) {
  const auto* const over_mpi = dynamic_cast<const MpiCommunicator*>(&communicator);
  return over_mpi == nullptr ? Watched{} : Watched{over_mpi->progress(), over_mpi->group()};
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
