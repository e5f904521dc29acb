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

/// How much the picture changes from one frame to the next: mean |frame[i + 1] - frame[i]| (0 …
/// 255) where a new chunk of `chunk_frames` latents begins, and everywhere else. NaN where there is
/// no such step.
struct FrameChange {
  double at_borders, inside;
};
FrameChange frame_change(const at::Tensor& frames, int64_t chunk_frames);

/// Mean absolute difference of grey neighbours across the borders of a grid of `period` pixels
/// (both ways) over that of all other neighbours: 1 = no grid to be seen, above 1 tiles. Flat
/// pictures give 1. @throws Error if period < 2 or no border lies inside the picture.
double tile_grid(const at::Tensor& frames, int64_t period);

}  // namespace minwm::eval
