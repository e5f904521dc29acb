#include "minwm/eval/video_metrics.h"

#include <limits>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::eval {
namespace {

void require_pair(const at::Tensor& a, const at::Tensor& b, const char* what) {
  require(a.dim() == 4 && a.size(3) == 3 && a.scalar_type() == at::kByte &&
              b.scalar_type() == at::kByte && a.sizes() == b.sizes(),
          "{}: expected two uint8 videos [F, H, W, 3] of one size", what);
}

at::Tensor grey(const at::Tensor& frames) {
  const at::Tensor weights = at::tensor({.299f, .587f, .114f});
  return at::matmul(frames.to(at::kFloat), weights);  // [F, H, W]
}

}  // namespace

double mean_psnr(const at::Tensor& a, const at::Tensor& b) {
  require_pair(a, b, "PSNR");
  const at::Tensor difference = a.to(at::kFloat) - b.to(at::kFloat);
  const at::Tensor error = difference.square().mean({1, 2, 3}) / (255.0 * 255.0);
  return (-10 * error.clamp_min(1e-6).log10()).mean().item<double>();
}

double mean_ssim(const at::Tensor& a, const at::Tensor& b) {
  require_pair(a, b, "SSIM");
  constexpr int64_t kWindow = 11;
  require(a.size(1) >= kWindow && a.size(2) >= kWindow,
          "SSIM: frames of {}x{} are smaller than its 11x11 window", a.size(2), a.size(1));
  const at::Tensor offset = at::arange(kWindow, at::kFloat) - kWindow / 2;
  at::Tensor window = at::exp(-offset.square() / (2 * 1.5 * 1.5));
  window = window / window.sum();
  const auto smooth = [&](const at::Tensor& x) {  // [F, H, W], separable
    return at::conv2d(at::conv2d(x.unsqueeze(1), window.view({1, 1, kWindow, 1})),
                      window.view({1, 1, 1, kWindow}));
  };
  const at::Tensor x = grey(a), y = grey(b);
  const at::Tensor mean_x = smooth(x), mean_y = smooth(y);
  const at::Tensor var_x = smooth(x * x) - mean_x.square(), var_y = smooth(y * y) - mean_y.square();
  const at::Tensor covariance = smooth(x * y) - mean_x * mean_y;
  constexpr double c1 = (.01 * 255) * (.01 * 255), c2 = (.03 * 255) * (.03 * 255);
  const at::Tensor map = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) /
                         ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2));
  return map.mean().item<double>();
}

double mean_gradient(const at::Tensor& frames) {
  const at::Tensor x = grey(frames);
  return (x.slice(2, 1) - x.slice(2, 0, -1)).abs().mean().item<double>();
}

double temporal_flickering(const at::Tensor& frames) {
  require(frames.size(0) >= 2, "temporal flickering needs two frames");
  const at::Tensor x = frames.to(at::kFloat);
  return (255 - (x.slice(0, 1) - x.slice(0, 0, -1)).abs().mean().item<double>()) / 255;
}

FrameChange frame_change(const at::Tensor& frames, int64_t chunk_frames) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  require(chunk_frames >= 1, "frame change: chunks of {} latents", chunk_frames);
  const at::Tensor x = frames.to(at::kFloat);
  const at::Tensor steps = (x.slice(0, 1) - x.slice(0, 0, -1)).abs().mean({1, 2, 3});
  // Step i leads to frame i + 1; latent k begins with frame 4k - 3.
  const at::Tensor borders =
      at::arange(steps.size(0)).remainder(4 * chunk_frames) == 4 * (chunk_frames - 1);
  const auto mean = [&](const at::Tensor& where) {
    const at::Tensor chosen = steps.index({where});
    return chosen.numel() > 0 ? chosen.mean().item<double>() : kNaN;
  };
  return {mean(borders), mean(borders.logical_not())};
}

double tile_grid(const at::Tensor& frames, int64_t period) {
  require(period >= 2 && (frames.size(1) > period || frames.size(2) > period),
          "tile grid of {} pixels: not inside frames of {}x{}", period, frames.size(2),
          frames.size(1));
  const at::Tensor x = grey(frames);
  at::Tensor border_sum = at::zeros({}), other_sum = at::zeros({});
  int64_t borders = 0, others = 0;
  for (const int64_t axis : {1, 2}) {
    const at::Tensor steps = (x.slice(axis, 1) - x.slice(axis, 0, -1)).abs();
    const at::Tensor border = at::arange(1, steps.size(axis) + 1).remainder(period) == 0;
    const auto take = [&](const at::Tensor& where, at::Tensor& sum, int64_t& count) {
      const at::Tensor chosen = steps.index_select(axis, where.nonzero().squeeze(1));
      sum += chosen.sum();
      count += chosen.numel();
    };
    take(border, border_sum, borders);
    take(border.logical_not(), other_sum, others);
  }
  const double at_borders = border_sum.item<double>() / static_cast<double>(borders);
  const double elsewhere = other_sum.item<double>() / static_cast<double>(others);
  return at_borders > 0 ? at_borders / elsewhere : 1;
}

}  // namespace minwm::eval
