#pragma once
// How the analytic codec cuts video into blocks, and what its fits share.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace minwm::models {

constexpr int64_t kGroup = 4;         ///< video frames of a latent frame after the first
constexpr double kHalfRange = 127.5;  ///< uint8 u stands for u / 127.5 - 1

/// [B, n, 3, H, W] → [B h w, n 3 p p].
inline at::Tensor to_blocks(const at::Tensor& pixels, int64_t p) {
  const int64_t b = pixels.size(0), n = pixels.size(1);
  const int64_t h = pixels.size(3) / p, w = pixels.size(4) / p;
  return pixels.reshape({b, n, 3, h, p, w, p})
      .permute({0, 3, 5, 1, 2, 4, 6})
      .reshape({b * h * w, n * 3 * p * p});
}

/// The inverse of to_blocks, into `pixels` [B, n, 3, H, W], which may be part of a longer video.
inline void put_blocks(const at::Tensor& blocks, int64_t p, const at::Tensor& pixels) {
  const int64_t b = pixels.size(0), n = pixels.size(1);
  const int64_t h = pixels.size(3) / p, w = pixels.size(4) / p;
  pixels.view({b, n, 3, h, p, w, p})
      .copy_(blocks.view({b, h, w, n, 3, p, p}).permute({0, 3, 4, 1, 5, 2, 6}));
}

/// The last bits of LAPACK and of matrix products depend on the number of threads.
class OneThread {
 public:
  OneThread() : threads_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

}  // namespace minwm::models
