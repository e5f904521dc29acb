#pragma once
// Reference images on their way to an encoder, pixel for pixel as Pillow 11 makes them.
// An image is [H, W, 3] uint8 on the CPU.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::models {

enum class ResizeFilter { kBilinear, kBicubic, kLanczos };

/// Pillow's resize in 8 bits: columns first, then rows, each rounded to uint8.
/// @throws Error if the image is none, or a side is not positive.
/// Source: spec encoders 5.3; golden kind encoders.image.pil_resize.
at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width,
                         ResizeFilter filter);

/// Lanczos until the image covers the size, then its centre: exactly [height, width, 3]. (Pillow's
/// own crop is one pixel off where an odd side meets half a pixel; spec encoders 5.5.)
at::Tensor resize_center_crop(const at::Tensor& image, int64_t height, int64_t width);

struct ImageSize {
  int64_t height, width;
  bool operator==(const ImageSize&) const = default;
};

/// Sizes of about base² pixels in steps of `patch`, from tall to wide, sides at most `max_ratio`
/// apart. @throws Error if base < patch or one is not positive.
std::vector<ImageSize> size_buckets(int64_t base, int64_t patch, double max_ratio = 4);

/// The bucket whose height / width (5 decimals) is nearest to an image's; the first of equals.
ImageSize choose_bucket(const std::vector<ImageSize>& buckets, ImageSize image);

/// What SigLIP takes: bicubic to size x size (aspect not kept), [0, 255] → [-1, 1], channels first:
/// [1, 3, size, size] float32. Source: golden kind encoders.siglip.preprocess.
at::Tensor siglip_pixels(const at::Tensor& image, int64_t size = 384);

/// A frame of a training clip [3, H, W] in [-1, 1] as an image again: trunc(clamp(127.5 (x + 1))).
at::Tensor image_of_frame(const at::Tensor& frame);

}  // namespace minwm::models
