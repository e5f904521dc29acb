#pragma once
// Collectives over a group of ranks. MPI for CPU tensors; the interface is the one NCCL will
// implement. Every call is collective over the group and must be made in the same order on all its
// ranks. `what` names the purpose ("grad blocks.7") in timeouts and in the order ledger.
//
// Tensors are contiguous CPU tensors; anything else is an Error before anything is sent. A started
// collective moves on while the program computes: a thread of the World drives it. One that does
// not complete within the timeout ends the job with exit code 75, whether or not anybody waits for
// it, with one JSON line that names the call, its place in the sources, the calls before it and the
// ranks that have not made it. Source: parallel.md sections 2, 3.5 and 6.

#include <cstdint>
#include <memory>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::comm {

/// What a collective is for and where it is called from; made from a text at the call itself.
struct CallSite {
  using Source = std::source_location;
  // NOLINTBEGIN(google-explicit-constructor): any text names a call.
  CallSite(const char* text, Source source = Source::current()) : what(text), where(source) {}
  CallSite(const std::string& text, Source source = Source::current())
      : what(text), where(source) {}
  CallSite(std::string_view text, Source source = Source::current()) : what(text), where(source) {}
  // NOLINTEND(google-explicit-constructor)
  operator std::string_view() const { return what; }  // NOLINT(google-explicit-constructor)
  /// The same call with a deadline of its own: what waits for a disk may take longer.
  CallSite within(double seconds) const {
    CallSite site = *this;
    site.timeout = seconds;
    return site;
  }
  std::string_view what;  ///< must live until the call returns
  Source where;
  double timeout = 0;  ///< seconds it may take where that is more than the communicator's timeout
};

/// Handle of a started collective. wait() makes the result visible; the buffers must not be touched
/// until then. A handle destroyed early waits.
class Work {
 public:
  virtual ~Work() = default;
  virtual void wait() = 0;
  virtual bool test() = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// `inout` of `root` to all.
  virtual std::unique_ptr<Work> broadcast_async(at::Tensor inout, int root, CallSite what) = 0;
  /// Sum of `inout` over ranks, in place. bf16/fp16 are summed in float32 and rounded once.
  virtual std::unique_ptr<Work> all_reduce_async(at::Tensor inout, CallSite what) = 0;
  /// `full` = concatenation of every rank's `shard` (equal sizes), in rank order.
  virtual std::unique_ptr<Work> all_gather_async(const at::Tensor& shard, at::Tensor full,
                                                 CallSite what) = 0;
  /// `shard` = this rank's equal slice of the sum of every rank's `full`.
  virtual std::unique_ptr<Work> reduce_scatter_async(const at::Tensor& full, at::Tensor shard,
                                                     CallSite what) = 0;
  /// Sends send_counts[r] consecutive elements to rank r and receives recv_counts[r] from it, both
  /// in rank order; the counts must add up to the buffers' sizes.
  virtual std::unique_ptr<Work> all_to_all_async(const at::Tensor& send,
                                                 const std::vector<int64_t>& send_counts,
                                                 at::Tensor recv,
                                                 const std::vector<int64_t>& recv_counts,
                                                 CallSite what) = 0;
  /// Sends `send` to the next rank (rank + 1, around the ring) and receives `recv` from the one
  /// before; tensors one by one of equal shape and type on all ranks.
  virtual std::unique_ptr<Work> ring_shift_async(const std::vector<at::Tensor>& send,
                                                 const std::vector<at::Tensor>& recv,
                                                 CallSite what) = 0;
  virtual void barrier(CallSite what) = 0;
  /// Splits by color >= 0 (collective); ranks ordered as here. Live until the World ends.
  virtual std::shared_ptr<Communicator> split(int color) = 0;
  /// Seconds a collective may take before the job is aborted (default 600), for this communicator
  /// and all that share its World.
  virtual void set_timeout(double seconds) = 0;
  /// Hash of every call so far (operation, purpose, bytes, dtype).
  virtual uint64_t ledger() const = 0;
  /// Bytes that this rank has sent to others through this communicator: exactly, for what is built
  /// from messages between pairs of ranks (all_gather, reduce_scatter, all_to_all, ring_shift, and
  /// all_reduce from 64 KiB on: (N - 1) / N of the whole buffer, all_reduce twice that). Broadcasts
  /// and small all_reduces go along trees inside MPI, where ranks send unequal shares: counted is
  /// the mean, (N - 1) / N and 2 (N - 1) / N of the buffer. Barriers count nothing.
  virtual int64_t bytes_sent() const = 0;

  // Blocking forms.
  void broadcast(at::Tensor inout, int root, CallSite what);
  void all_reduce(at::Tensor inout, CallSite what);
  void all_gather(const at::Tensor& shard, at::Tensor full, CallSite what);
  void reduce_scatter(const at::Tensor& full, at::Tensor shard, CallSite what);
  void all_to_all(const at::Tensor& send, const std::vector<int64_t>& send_counts, at::Tensor recv,
                  const std::vector<int64_t>& recv_counts, CallSite what);
  /// Root's string on all ranks.
  std::string broadcast_string(std::string value, int root, CallSite what);
  double all_reduce_max(double value, CallSite what);
  /// Summed in rank order, so that every rank gets the same bits.
  double all_reduce_sum(double value, CallSite what);
  /// @throws Error on every rank if the ranks' ledgers differ: some rank made other calls.
  void check_order();

 protected:
  /// The communicator of the same ranks that moves CPU tensors.
  virtual Communicator& host() { return *this; }

 private:
  /// Every rank's value, in rank order.
  std::vector<double> gather_scalars(double value, CallSite what);
};

class Progress;

/// MPI_Init_thread … MPI_Finalize around a program. Construct once in main, before any
/// communicator. If the program was not started by mpirun/srun it is a world of one. On an
/// exception that leaves main the job is aborted (see run_world_main), so that ranks blocked in a
/// collective end within seconds.
class World {
 public:
  World(int* argc, char*** argv);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  std::shared_ptr<Communicator> communicator() const;
  int rank() const;
  int size() const;
  int local_rank() const;  ///< index among the ranks of this host
  int local_size() const;  ///< ranks of this host

 private:
  std::shared_ptr<Progress> progress_;
  std::shared_ptr<Communicator> world_;
  int local_rank_ = 0, local_size_ = 1;
};

/// Prints one JSON line (rank, host, what) to stderr and ends the whole job with `exit_code`.
[[noreturn]] void abort_job(const std::string& message, int exit_code);

/// run_main for programs that use MPI: any exception of `body` on one rank of several ends the
/// whole job with its message; with one rank it is an ordinary one-line error.
int run_world_main(const char* program, int argc, char** argv,
                   int (*body)(World& world, int argc, char** argv));

/// A group of one that needs no MPI (serving, tests): every collective is the identity.
std::shared_ptr<Communicator> self_communicator();

}  // namespace minwm::comm
