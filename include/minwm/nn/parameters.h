#pragma once
// How modules make their parameters, and how a tensor's memory is given back and taken again.

#include <cstdint>

#include <torch/torch.h>

namespace minwm::nn {

/// While one of these lives on a thread, the parameters made on it are hollow: they have shapes,
/// but no memory. For models whose weights are spread over ranks, or only counted.
class HollowParameters {
 public:
  HollowParameters();
  ~HollowParameters();
  HollowParameters(const HollowParameters&) = delete;
  HollowParameters& operator=(const HollowParameters&) = delete;
  /// True if this thread makes hollow parameters now.
  static bool active();

 private:
  bool before_;
};

/// A float32 tensor of this shape filled with `value`, or a hollow one.
at::Tensor make_parameter(at::IntArrayRef shape, float value = 0);

/// Gives the memory under a tensor (and all its views) back; shapes stay.
void release_storage(const at::Tensor& tensor);
/// Takes memory for as many bytes again, with undefined contents. The tensor must be the owner of
/// its whole storage.
void allocate_storage(const at::Tensor& tensor);

}  // namespace minwm::nn
