#include "minwm/eval/contact_sheet.h"

#include <algorithm>
#include <cmath>

#include <opencv2/imgproc.hpp>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::eval {
namespace {

constexpr int kGap = 4, kMargin = 16;  // pixels between frames and around everything
constexpr int kLetter = 12;            // height of a capital letter, pixels
constexpr int kLine = 2 * kLetter;     // of a line of text
constexpr int kFine = 4;               // text is drawn this much larger and averaged down
const cv::Scalar kGround(24, 26, 31), kInk(226, 229, 234), kSoftInk(150, 156, 166);

// A line of text as coverage (0 … 255), kLine pixels high. OpenCV's stroke font looks like print
// once it is averaged down.
cv::Mat text_mask(const std::string& text) {
  constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX, kStroke = 6;
  int below = 0;
  const double scale = cv::getFontScaleFromHeight(kFont, kFine * kLetter, kStroke);
  const cv::Size size = cv::getTextSize(text, kFont, scale, kStroke, &below);
  const int width = (size.width + kFine) / kFine + 1;
  cv::Mat large = cv::Mat::zeros(kFine * kLine, kFine * width, CV_8U);
  const int baseline = kFine * (kLine + kLetter) / 2;
  cv::putText(large, text, {kFine / 2, baseline}, kFont, scale, 255, kStroke, cv::LINE_AA);
  cv::Mat mask;
  cv::resize(large, mask, {width, kLine}, 0, 0, cv::INTER_AREA);
  return mask;
}

// Its left edge at x, its line centred on y; what lies outside the picture is cut off.
void put_text(cv::Mat& picture, const cv::Mat& mask, int x, int y, const cv::Scalar& ink) {
  const cv::Rect wanted(x, y - mask.rows / 2, mask.cols, mask.rows);
  const cv::Rect place = wanted & cv::Rect(0, 0, picture.cols, picture.rows);
  for (int r = place.y; r < place.y + place.height; ++r) {
    for (int c = place.x; c < place.x + place.width; ++c) {
      const double cover = mask.at<uint8_t>(r - wanted.y, c - wanted.x) / 255.0;
      auto& pixel = picture.at<cv::Vec3b>(r, c);
      for (int k = 0; k < 3; ++k) {
        pixel[k] = cv::saturate_cast<uint8_t>(pixel[k] + cover * (ink[k] - pixel[k]));
      }
    }
  }
}

void check(const std::vector<SheetRow>& rows, const ContactSheetOptions& options) {
  require(!rows.empty(), "contact sheet: there are no rows");
  require(options.columns >= 1 && options.scale >= 1,
          "contact sheet: {} columns at scale {}: expected at least 1", options.columns,
          options.scale);
  for (const auto& row : rows) {
    const at::Tensor& frames = row.frames;
    require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte &&
                frames.numel() > 0,
            "contact sheet: row '{}' is no uint8 video [F, H, W, 3]", row.label);
    require(frames.sizes().slice(1) == rows.front().frames.sizes().slice(1),
            "contact sheet: row '{}' has frames of {}x{} pixels, the first row of {}x{}", row.label,
            frames.size(2), frames.size(1), rows.front().frames.size(2),
            rows.front().frames.size(1));
  }
}

struct Frame {
  int width, height;  // as shown
};

Frame shown_size(const std::vector<SheetRow>& rows, const ContactSheetOptions& options) {
  return {static_cast<int>(rows.front().frames.size(2) * options.scale),
          static_cast<int>(rows.front().frames.size(1) * options.scale)};
}

void put_frame(cv::Mat& picture, const at::Tensor& frame, int x, int y, Frame size, bool smooth) {
  const at::Tensor plain = frame.contiguous();
  const cv::Mat source(static_cast<int>(plain.size(0)), static_cast<int>(plain.size(1)), CV_8UC3,
                       plain.data_ptr<uint8_t>());
  cv::Mat target = picture(cv::Rect(x, y, size.width, size.height));
  cv::resize(source, target, target.size(), 0, 0, smooth ? cv::INTER_CUBIC : cv::INTER_NEAREST);
}

// Frame shown in column k of n: evenly spaced, both ends included.
int64_t spaced(int64_t k, int64_t n, int64_t frames) {
  return n == 1 ? 0
                : std::llround(static_cast<double>(k) * static_cast<double>(frames - 1) /
                               static_cast<double>(n - 1));
}

// The picture and a tensor that shares its memory.
std::pair<cv::Mat, at::Tensor> dark_picture(int width, int height) {
  at::Tensor memory = at::empty({height, width, 3}, at::kByte);
  cv::Mat picture(height, width, CV_8UC3, memory.data_ptr<uint8_t>());
  picture.setTo(kGround);
  return {picture, memory};
}

}  // namespace

at::Tensor contact_sheet(const std::vector<SheetRow>& rows, const ContactSheetOptions& options) {
  check(rows, options);
  const Frame frame = shown_size(rows, options);
  std::vector<cv::Mat> labels;
  int label_width = 0;
  int64_t columns = 1;
  for (const auto& row : rows) {
    labels.push_back(row.label.empty() ? cv::Mat() : text_mask(row.label));
    label_width = std::max(label_width, labels.back().cols);
    columns = std::max(columns, std::min(options.columns, row.frames.size(0)));
  }
  const cv::Mat caption = options.caption.empty() ? cv::Mat() : text_mask(options.caption);
  const int left = kMargin + (label_width > 0 ? label_width + kMargin : 0);
  const int frames_width = static_cast<int>(columns) * (frame.width + kGap) - kGap;
  const int rows_height = static_cast<int>(rows.size()) * (frame.height + kGap) - kGap;
  auto [picture, memory] =
      dark_picture(std::max(left + frames_width, kMargin + caption.cols) + kMargin,
                   kMargin + rows_height + (caption.empty() ? 0 : kLine + kGap) + kMargin);
  for (size_t r = 0; r < rows.size(); ++r) {
    const int y = kMargin + static_cast<int>(r) * (frame.height + kGap);
    if (!labels[r].empty()) {
      put_text(picture, labels[r], kMargin, y + frame.height / 2, kInk);
    }
    const int64_t count = rows[r].frames.size(0), n = std::min(options.columns, count);
    for (int64_t k = 0; k < n; ++k) {
      put_frame(picture, rows[r].frames[spaced(k, n, count)],
                left + static_cast<int>(k) * (frame.width + kGap), y, frame, options.smooth);
    }
  }
  if (!caption.empty()) {
    put_text(picture, caption, kMargin, kMargin + rows_height + kGap + kLine / 2 + kGap, kSoftInk);
  }
  return memory;
}

at::Tensor tiled_video(const std::vector<SheetRow>& rows, const ContactSheetOptions& options) {
  check(rows, options);
  const Frame frame = shown_size(rows, options);
  const int columns = static_cast<int>(std::min<int64_t>(options.columns, std::ssize(rows)));
  const int lines = (static_cast<int>(rows.size()) + columns - 1) / columns;
  const bool labelled =
      std::any_of(rows.begin(), rows.end(), [](const auto& row) { return !row.label.empty(); });
  const int tile_width = frame.width + kGap, tile_height = frame.height + kGap + labelled * kLine;
  const auto even = [](int size) { return size + size % 2; };  // H.264 takes no odd sizes
  auto [ground, memory] = dark_picture(even(2 * kMargin + columns * tile_width - kGap),
                                       even(2 * kMargin + lines * tile_height - kGap));
  int64_t count = 0;
  std::vector<cv::Point> places;
  for (size_t r = 0; r < rows.size(); ++r) {
    places.emplace_back(kMargin + static_cast<int>(r) % columns * tile_width,
                        kMargin + static_cast<int>(r) / columns * tile_height);
    if (!rows[r].label.empty()) {
      put_text(ground, text_mask(rows[r].label), places[r].x,
               places[r].y + frame.height + kLine / 2, kInk);
    }
    count = std::max(count, rows[r].frames.size(0));
  }
  const at::Tensor video = memory.unsqueeze(0).repeat({count, 1, 1, 1});
  for (int64_t f = 0; f < count; ++f) {
    cv::Mat picture(ground.rows, ground.cols, CV_8UC3, video[f].data_ptr<uint8_t>());
    for (size_t r = 0; r < rows.size(); ++r) {
      put_frame(picture, rows[r].frames[std::min(f, rows[r].frames.size(0) - 1)], places[r].x,
                places[r].y, frame, options.smooth);
    }
  }
  return video;
}

}  // namespace minwm::eval
