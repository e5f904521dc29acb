#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/data/video.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

/// Decoders fill what is missing of a truncated file with grey and print to stderr: look for the
/// end first.
bool truncated(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG")) {
    return bytes.rfind("IEND") == std::string_view::npos;
  }
  if (bytes.starts_with("\xFF\xD8")) {
    // Neither marker occurs inside compressed data: after the last scan's start its end must come.
    const size_t end = bytes.rfind("\xFF\xD9");
    const size_t scan = bytes.rfind("\xFF\xDA");
    return end == std::string_view::npos || (scan != std::string_view::npos && end < scan);
  }
  return false;
}

}  // namespace

at::Tensor read_image(const fs::path& path) {
  const std::string bytes = read_file(path);
  require(!truncated(bytes), "{}: the image is truncated", path.string());
  cv::Mat image;
  try {
    if (!bytes.empty()) {
      const cv::Mat raw(1, static_cast<int>(bytes.size()), CV_8UC1,
                        const_cast<char*>(bytes.data()));
      image = cv::imdecode(raw, cv::IMREAD_COLOR);
    }
  } catch (const cv::Exception& error) {
    fail("{}: not a readable image: {}", path.string(), error.err);
  }
  require(!image.empty(), "{}: not a readable image", path.string());
  cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
  return at::from_blob(image.data, {image.rows, image.cols, 3}, at::kByte).clone();
}

void write_image(const fs::path& path, const at::Tensor& image) {
  require(image.dim() == 3 && image.size(2) == 3 && image.scalar_type() == at::kByte &&
              image.numel() > 0,
          "{}: an image is uint8 [H, W, 3], got {} of {} axes", path.string(),
          c10::toString(image.scalar_type()), image.dim());
  const std::string extension = path.extension();
  require(extension == ".png" || extension == ".jpg" || extension == ".jpeg",
          "{}: images are written as .png, .jpg or .jpeg", path.string());
  const at::Tensor plain = image.to(at::kCPU).contiguous();
  const cv::Mat rgb(static_cast<int>(plain.size(0)), static_cast<int>(plain.size(1)), CV_8UC3,
                    plain.data_ptr<uint8_t>());
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  std::vector<uint8_t> bytes;
  require(cv::imencode(extension, bgr, bytes), "{}: the image cannot be encoded", path.string());
  atomic_write(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace minwm::data
