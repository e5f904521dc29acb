#pragma once
// Video files through FFmpeg's libraries.

#include <filesystem>

#include <ATen/core/Tensor.h>

namespace minwm::data {

struct Video {
  at::Tensor frames;  ///< uint8 [F, H, W, 3] RGB
  double fps = 0;
};

/// Decodes a whole file (or its first max_frames). @throws Error naming the file if it is missing,
/// corrupt, truncated or has no video stream.
Video read_video(const std::filesystem::path& path, int64_t max_frames = -1);

/// Writes H.264 mp4 (yuv420p), atomically. frames uint8 [F, H, W, 3], even H and W.
void write_video(const std::filesystem::path& path, const at::Tensor& frames, double fps,
                 int crf = 16);

/// uint8 [F, H, W, 3] → float32 [F, 3, H, W] in [-1, 1], resized (bilinear, half-pixel centres, no
/// antialias) if the size differs (spec vae 2).
at::Tensor to_pixels(const at::Tensor& frames, int64_t height, int64_t width);

/// An image file as uint8 [H, W, 3] RGB. @throws Error naming the file if it is not an image.
at::Tensor read_image(const std::filesystem::path& path);
/// PNG or JPEG by extension, atomically.
void write_image(const std::filesystem::path& path, const at::Tensor& image);

}  // namespace minwm::data
