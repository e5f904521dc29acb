#pragma once
// Video frames of 8 bits to what the networks see, and back (spec vae 2).

#include <ATen/core/Tensor.h>

namespace minwm::models {

/// uint8 [F, H, W, 3] → float32 [F, 3, height, width] in [-1, 1]: stretched to the size in 0 … 255
/// (bilinear, half-pixel centres, no antialias; nothing where it fits), then (x / 255 - 0.5) 2.
/// @throws Error on another shape or type, or a size below 1.
/// Source: spec vae 2; golden vae.pixel.load.
at::Tensor load_pixels(const at::Tensor& frames, int64_t height, int64_t width);

/// How [-1, 1] becomes 0 … 255.
enum class PixelRounding {
  kNearest,      ///< rint(127.5 v + 127.5), ties to even: to_uint8 of codec.h
  kTruncateWan,  ///< v / 2 + 1 / 2 down to the next integer of 255, as Wan's programs write it
  kTruncateHy,   ///< (v + 1) / 2, likewise, as HunyuanVideo's do; last bits apart from Wan's
};

/// Floats of any shape → uint8; what lies outside [-1, 1] is clamped. Golden vae.pixel.out.
at::Tensor to_uint8(const at::Tensor& pixels, PixelRounding rounding);

}  // namespace minwm::models
