#pragma once
// Parameters of one type laid out in one flat array, of which every rank keeps an equal slice. The
// array itself (full) has memory only while it is gathered; the modules' parameters are views of
// it. Source: parallel.md section 3.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "minwm/comm/mesh.h"
#include "minwm/parallel/sharded_model.h"

namespace minwm::parallel {

/// What a model's buffers count together.
struct GatherCount {
  int64_t gathers = 0, reductions = 0;      ///< started
  int64_t gathered = 0, gathered_peak = 0;  ///< bytes of full arrays, now and at most
};

/// A parameter and its place in the flat array.
struct FlatEntry {
  std::string name;
  at::Tensor parameter;  ///< the module's own handle
  std::vector<int64_t> shape;
  int64_t offset = 0, numel = 0;
  bool filled = false;   ///< has a gradient in the flat gradient
  bool touched = false;  ///< got a gradient in this step
};

/// A reduction under way. `slice` receives this rank's sum.
struct FlatReduction {
  at::Tensor full, slice;
  std::unique_ptr<comm::Work> work;
};

class FlatBuffer {
 public:
  /// Takes the parameters over: their values go to this rank's slice (unless hollow), their memory
  /// is given back. Offsets are multiples of 16 elements, the whole one of 16 x ranks; padding is
  /// zero. `name` is for messages.
  FlatBuffer(std::string name, std::vector<FlatEntry> entries, at::ScalarType type,
             const comm::Mesh& mesh, const ShardOptions& options, GatherCount* count);

  const std::string& name() const { return name_; }
  std::vector<FlatEntry>& entries() { return entries_; }
  const std::vector<FlatEntry>& entries() const { return entries_; }

  /// This rank's part of an entry; its shape, values and gradient are views.
  Piece piece(const FlatEntry& entry) const;
  /// A whole parameter, in the slices' type, on every rank of one copy (collective).
  at::Tensor gather_entry(const FlatEntry& entry) const;
  /// The slice has new values.
  void values_changed() { sent_is_stale_ = true; }

  /// Takes memory for the full array and starts to fill it; then waits; then gives it back.
  void start_gather();
  void finish_gather();
  void release();

  /// Adds a parameter's gradient to the flat gradient, which is made if there is none.
  void add_gradient(FlatEntry& entry, const at::Tensor& gradient);
  bool has_flat_gradient() const { return flat_gradient_.defined(); }
  /// The flat gradient (zeros if there is none) leaves for its owners. Reductions of one buffer
  /// must be finished in the order in which they were started.
  FlatReduction start_reduction();
  void finish_reduction(FlatReduction& reduction);
  /// Adds the replicas' slices up (collective over `replicate`), in two steps.
  void start_replicas();
  void finish_replicas();
  void zero_gradient();

  int64_t slice_bytes() const;
  int64_t gradient_bytes() const;

 private:
  void lay_out();
  /// What a rank gives to a gather, on the device.
  at::Tensor to_send();
  void zero_gaps();

  std::string name_;
  std::vector<FlatEntry> entries_;
  const comm::Mesh* mesh_;
  c10::Device device_;
  GatherCount* count_;
  int64_t slice_ = 0;  // elements of a slice
  at::Tensor master_;  // [slice] home
  at::Tensor cast_;    // [slice] home, in the full array's type if that is another
  bool sent_is_stale_ = true;
  at::Tensor full_;  // [ranks * slice] device
  at::Tensor sent_;  // kept while a gather runs
  std::unique_ptr<comm::Work> gather_;
  at::Tensor gradient_;  // [slice] float32 home; undefined if frozen
  bool gradient_is_zero_ = true;
  at::Tensor flat_gradient_;  // [ranks * slice] float32 device
  FlatReduction replicas_;
};

}  // namespace minwm::parallel
