#include "minwm/eval/video_metrics.h"

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

}  // namespace minwm::eval
