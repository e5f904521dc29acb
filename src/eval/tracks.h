#pragma once
// Corners followed from one picture to another.

#include <vector>

#include <opencv2/core.hpp>

#include <ATen/core/Tensor.h>

namespace minwm::eval {

/// Corner positions in both pictures, in pixels; the centre of the first pixel is (0, 0).
struct Tracks {
  std::vector<cv::Point2f> from, to;
  size_t size() const { return from.size(); }
};

/// Grey picture of one uint8 [H, W, 3] frame.
cv::Mat grey_picture(const at::Tensor& frame);

/// Shi-Tomasi corners of `from` followed by pyramidal Lucas-Kanade into `to`; kept where following
/// them back returns within 0.7 pixels.
Tracks track(const cv::Mat& from, const cv::Mat& to);

}  // namespace minwm::eval
