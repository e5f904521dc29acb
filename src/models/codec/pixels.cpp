#include "minwm/models/codec/pixels.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/models/codec/codec.h"

namespace minwm::models {

at::Tensor load_pixels(const at::Tensor& frames, int64_t height, int64_t width) {
  require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte &&
              frames.numel() > 0,
          "frames {} [{}]: expected uint8 [F, H, W, 3]", c10::toString(frames.scalar_type()),
          fmt::join(frames.sizes(), ", "));
  require(height >= 1 && width >= 1, "frames cannot be resized to {} x {} pixels", height, width);
  at::Tensor values = frames.permute({0, 3, 1, 2}).to(at::kFloat).contiguous();
  if (values.size(2) != height || values.size(3) != width) {
    values = at::upsample_bilinear2d(values, {height, width}, /*align_corners=*/false);
  }
  // In this order of operations, not x / 127.5 - 1, whose last bits differ.
  return values.div_(255).sub_(0.5).mul_(2);
}

at::Tensor to_uint8(const at::Tensor& pixels, PixelRounding rounding) {
  if (rounding == PixelRounding::kNearest) {
    return to_uint8(pixels);
  }
  const at::Tensor clamped = pixels.to(at::kFloat).clamp(-1, 1);
  const at::Tensor unit = rounding == PixelRounding::kTruncateWan
                              ? clamped.mul(0.5).add_(0.5).clamp_(0, 1)
                              : clamped.add(1).div_(2);
  return unit.mul_(255).to(at::kByte);
}

}  // namespace minwm::models
