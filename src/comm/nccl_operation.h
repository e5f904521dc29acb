#pragma once
// What runs on a GPU for a collective: a communicator of NCCL with its stream, one collective in
// it, the handle of that.

#include <exception>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include "minwm/core/error.h"
#include "nccl_module.h"
#include "operation.h"

namespace minwm::comm {

/// @throws Error (exit code 70) with NCCL's own message unless `code` is good.
void check_nccl(ncclResult_t code, const char* call, std::string_view what);

/// One ncclComm_t and the stream of its collectives; alive while one of them runs.
class Line {
 public:
  Line(const NcclSetup& setup, double timeout);
  ~Line() {
    if (comm_ != nullptr) {
      // The progress thread keeps an operation, and with it this, until it is complete. Without one
      // (self_communicator) a collective may still run; it waits for no other rank, and neither
      // does the end of the communicator.
      static_cast<void>(cudaStreamSynchronize(handle_));
      ncclCommAbort(comm_);
    }
  }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  ncclComm_t comm() const { return comm_; }
  c10::cuda::CUDAStream stream() const { return stream_; }
  /// Calls of a communicator that never blocks return before their kernels are in the stream.
  void settle(const char* op, std::string_view what) const;
  /// The error that the communicator has run into, or ncclSuccess.
  ncclResult_t trouble() const {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t code = ncclCommGetAsyncError(comm_, &state);
    return code != ncclSuccess ? code : state == ncclInProgress ? ncclSuccess : state;
  }
  /// Ends what runs, so that the process can end.
  void abandon() noexcept {
    if (const ncclComm_t comm = std::exchange(comm_, nullptr)) {
      ncclCommAbort(comm);
    }
  }

 private:
  ncclComm_t comm_ = nullptr;
  c10::cuda::CUDAStream stream_;
  cudaStream_t handle_;
  double timeout_;
};

/// A collective in a stream: watched, not moved on, by the progress thread.
class NcclOperation : public Operation {
 public:
  NcclOperation(Call call, std::shared_ptr<Group> group, std::shared_ptr<Line> line)
      : Operation(std::move(call), std::move(group)), line_(std::move(line)) {}
  bool needs_polling() const override { return false; }
  void abandon() noexcept override { line_->abandon(); }
  /// After the collective was put into the stream.
  void record() { complete_.record(line_->stream()); }
  /// Later work of `stream` sees the results.
  void block(const c10::cuda::CUDAStream& stream) { complete_.block(stream); }
  c10::cuda::CUDAStream stream() const { return line_->stream(); }

 private:
  bool poll() override {
    const ncclResult_t trouble = line_->trouble();
    if (trouble != ncclSuccess) {
      abandon();
      abort_job(fmt::format("{}: {}", call().text(), ncclGetErrorString(trouble)), kExitFailure);
    }
    const c10::cuda::CUDAGuard guard(line_->stream().device_index());
    return complete_.query();
  }

  std::shared_ptr<Line> line_;
  c10::cuda::CUDAEvent complete_{cudaEventDisableTiming};
};

/// Holds the buffers until wait(), and does not tell the allocator of the collective's stream: once
/// wait() has put the compute stream behind the collective, what is freed is safe to use again by
/// the order of the compute stream alone, at once and however far the CPU runs ahead. Memory that
/// the allocator knew to be used by another stream would come back only when the GPU has got there,
/// and a CPU that runs ahead would take new memory for every block of a model.
class NcclWork : public Work {
 public:
  NcclWork(std::shared_ptr<NcclOperation> operation, std::vector<at::Tensor> buffers,
           c10::cuda::CUDAStream caller)
      : operation_(std::move(operation)), buffers_(std::move(buffers)), caller_(caller) {}
  ~NcclWork() override {
    if (waited_) {
      return;
    }
    try {
      if (std::uncaught_exceptions() > 0) {
        leave_behind();
      } else {
        order_after();
      }
    } catch (const std::exception& error) {
      abort_job(error.what(), kExitFailure);
    }
  }
  NcclWork(const NcclWork&) = delete;
  NcclWork& operator=(const NcclWork&) = delete;
  void wait() override {
    operation_->rethrow();
    order_after();
    waited_ = true;
  }
  bool test() override {
    const bool done = operation_->advance();
    operation_->rethrow();
    return done;
  }

 private:
  /// Puts the current stream behind the collective, and the one that started it, whose memory the
  /// buffers may be; then they may go.
  void order_after() {
    operation_->block(c10::cuda::getCurrentCUDAStream(caller_.device_index()));
    operation_->block(caller_);
    buffers_.clear();
  }
  /// While an exception passes, the collective may never end, and no stream is to wait for it: the
  /// allocator keeps the memory until its stream has passed.
  void leave_behind() {
    for (const at::Tensor& buffer : buffers_) {
      c10::cuda::CUDACachingAllocator::recordStream(buffer.storage().data_ptr(),
                                                    operation_->stream());
    }
  }

  std::shared_ptr<NcclOperation> operation_;
  std::vector<at::Tensor> buffers_;
  c10::cuda::CUDAStream caller_;
  bool waited_ = false;
};

}  // namespace minwm::comm
