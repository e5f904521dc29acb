#pragma once
// Picture quality: PSNR, SSIM, sharpness, flicker. Frames are uint8 [F, H, W, 3].

#include <ATen/core/Tensor.h>

namespace minwm::eval {

/// 10 log10(255^2 / mean squared error) per frame, mean over frames; 60 dB at most per frame.
double mean_psnr(const at::Tensor& a, const at::Tensor& b);

/// Structural similarity of the grey pictures: Gaussian window 11 x 11, sigma 1.5, K = .01 and .03,
/// only where the window lies inside the picture; mean over frames. 1 = equal. Frames must be at
/// least 11 x 11.
double mean_ssim(const at::Tensor& a, const at::Tensor& b);

/// Mean absolute horizontal difference of neighbouring grey pixels (0 … 255). Compare to the
/// truth's through the codec: below 1 blurred, above 1 grainy.
double mean_gradient(const at::Tensor& frames);

/// VBench's temporal flickering: (255 - mean |frame[i + 1] - frame[i]|) / 255; 1 = frozen.
double temporal_flickering(const at::Tensor& frames);

}  // namespace minwm::eval
