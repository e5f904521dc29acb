#include "tracks.h"

#include <opencv2/imgproc.hpp>
#include <opencv2/video/tracking.hpp>

namespace minwm::eval {

cv::Mat grey_picture(const at::Tensor& frame) {
  const at::Tensor contiguous = frame.contiguous();
  const cv::Mat rgb(static_cast<int>(frame.size(0)), static_cast<int>(frame.size(1)), CV_8UC3,
                    const_cast<uint8_t*>(contiguous.const_data_ptr<uint8_t>()));
  cv::Mat grey;
  cv::cvtColor(rgb, grey, cv::COLOR_RGB2GRAY);
  return grey;
}

Tracks track(const cv::Mat& from, const cv::Mat& to) {
  constexpr float kForwardBackward = .7f;
  const int spacing = from.cols < 96 ? 4 : 5;
  std::vector<cv::Point2f> corners, forward, backward;
  cv::goodFeaturesToTrack(from, corners, 300, .005, spacing, cv::noArray(), 3);
  Tracks tracks;
  if (corners.empty()) {
    return tracks;
  }
  const cv::Size window(9, 9);
  const cv::TermCriteria stop(cv::TermCriteria::COUNT + cv::TermCriteria::EPS, 30, .01);
  std::vector<uint8_t> found, found_back;
  cv::calcOpticalFlowPyrLK(from, to, corners, forward, found, cv::noArray(), window, 2, stop);
  backward = corners;
  cv::calcOpticalFlowPyrLK(to, from, forward, backward, found_back, cv::noArray(), window, 2, stop);
  const cv::Rect2f inside(0, 0, static_cast<float>(from.cols - 1),
                          static_cast<float>(from.rows - 1));
  for (size_t i = 0; i < corners.size(); ++i) {
    if (found[i] && found_back[i] && inside.contains(forward[i]) &&
        cv::norm(backward[i] - corners[i]) < kForwardBackward) {
      tracks.from.push_back(corners[i]);
      tracks.to.push_back(forward[i]);
    }
  }
  return tracks;
}

}  // namespace minwm::eval
