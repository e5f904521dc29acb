#include "minwm/models/vision/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <ATen/ATen.h>
#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

constexpr int kFractionBits = 22;  // Pillow's: 32 - 8 bits of a value - 2 for what overshoots

struct Kernel {
  double support;
  double (*value)(double);
};

double bilinear(double t) {
  return std::max(0.0, 1 - std::abs(t));
}

double bicubic(double t) {
  constexpr double kA = -0.5;
  t = std::abs(t);
  if (t < 1) {
    return ((kA + 2) * t - (kA + 3)) * t * t + 1;
  }
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * kA : 0;
}

double sinc(double t) {
  return t == 0 ? 1 : std::sin(t * M_PI) / (t * M_PI);
}

double lanczos(double t) {
  return t >= -3 && t < 3 ? sinc(t) * sinc(t / 3) : 0;
}

Kernel kernel_of(ResizeFilter filter) {
  switch (filter) {
    case ResizeFilter::kBilinear:
      return {1, bilinear};
    case ResizeFilter::kBicubic:
      return {2, bicubic};
    default:
      return {3, lanczos};
  }
}

/// The input values that make one output value, and their weights in fixed point.
struct Window {
  int64_t first;
  std::vector<int32_t> weights;
};

std::vector<Window> windows(int64_t in, int64_t out, const Kernel& kernel) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0), support = kernel.support * stretch;
  std::vector<Window> all(static_cast<size_t>(out));
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t end = std::min(in, static_cast<int64_t>(center + support + 0.5));
    std::vector<double> values;
    double sum = 0;
    for (int64_t x = first; x < end; ++x) {
      values.push_back(kernel.value((static_cast<double>(x) - center + 0.5) * (1 / stretch)));
      sum += values.back();
    }
    auto& window = all[static_cast<size_t>(i)];
    window.first = first;
    for (const double value : values) {
      const double scaled = (sum == 0 ? value : value / sum) * (1 << kFractionBits);
      window.weights.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
  }
  return all;
}

/// One pass: `lines` lines of `in` places each become lines of `out` places; a place holds `inner`
/// values that are weighted alike.
struct Pass {
  int64_t lines, in, out, inner;
};

void resample(const uint8_t* from, uint8_t* to, const Pass& pass, const std::vector<Window>& all) {
  for (int64_t line = 0; line < pass.lines; ++line) {
    const uint8_t* source = from + line * pass.in * pass.inner;
    uint8_t* target = to + line * pass.out * pass.inner;
    for (const auto& window : all) {
      for (int64_t j = 0; j < pass.inner; ++j) {
        int64_t sum = 1 << (kFractionBits - 1);
        const uint8_t* value = source + window.first * pass.inner + j;
        for (const int32_t weight : window.weights) {
          sum += static_cast<int64_t>(weight) * *value;
          value += pass.inner;
        }
        *target++ = static_cast<uint8_t>(std::clamp<int64_t>(sum >> kFractionBits, 0, 255));
      }
    }
  }
}

void require_image(const at::Tensor& image) {
  require(image.dim() == 3 && image.size(2) == 3 && image.scalar_type() == at::kByte &&
              image.is_cpu() && image.numel() > 0,
          "image is {} [{}], expected Byte [H, W, 3]", c10::toString(image.scalar_type()),
          fmt::join(image.sizes(), ", "));
}

/// A ratio rounded to 5 decimals, halves to even, as Python's round() does it.
double rounded_ratio(const ImageSize& size) {
  const double ratio = static_cast<double>(size.height) / static_cast<double>(size.width);
  return std::strtod(fmt::format("{:.5f}", ratio).c_str(), nullptr);
}

}  // namespace

at::Tensor pillow_resize(const at::Tensor& image, int64_t height, int64_t width,
                         ResizeFilter filter) {
  require_image(image);
  require(height > 0 && width > 0, "cannot resize an image to {} x {} pixels", height, width);
  const Kernel kernel = kernel_of(filter);
  at::Tensor result = image.contiguous().clone();
  const int64_t old_height = image.size(0), old_width = image.size(1);
  if (width != old_width) {
    const at::Tensor next = at::empty({old_height, width, 3}, at::kByte);
    resample(result.const_data_ptr<uint8_t>(), next.mutable_data_ptr<uint8_t>(),
             {.lines = old_height, .in = old_width, .out = width, .inner = 3},
             windows(old_width, width, kernel));
    result = next;
  }
  if (height != old_height) {
    const at::Tensor next = at::empty({height, width, 3}, at::kByte);
    resample(result.const_data_ptr<uint8_t>(), next.mutable_data_ptr<uint8_t>(),
             {.lines = 1, .in = old_height, .out = height, .inner = 3 * width},
             windows(old_height, height, kernel));
    result = next;
  }
  return result;
}

at::Tensor resize_center_crop(const at::Tensor& image, int64_t height, int64_t width) {
  require_image(image);
  require(height > 0 && width > 0, "cannot crop an image to {} x {} pixels", height, width);
  const auto h = static_cast<double>(image.size(0)), w = static_cast<double>(image.size(1));
  if (image.size(0) == height && image.size(1) == width) {
    return image.clone();
  }
  // std::nearbyint rounds halves to even, as Python does.
  const double scale = std::max(static_cast<double>(width) / w, static_cast<double>(height) / h);
  const auto wide = static_cast<int64_t>(std::nearbyint(w * scale));
  const auto high = static_cast<int64_t>(std::nearbyint(h * scale));
  const at::Tensor resized = pillow_resize(image, high, wide, ResizeFilter::kLanczos);
  const auto start = [](int64_t whole, int64_t part) {
    return static_cast<int64_t>(std::nearbyint(static_cast<double>(whole - part) / 2));
  };
  return resized.narrow(0, start(high, height), height)
      .narrow(1, start(wide, width), width)
      .contiguous();
}

std::vector<ImageSize> size_buckets(int64_t base, int64_t patch, double max_ratio) {
  require(patch > 0 && base >= patch && max_ratio >= 1,
          "size buckets of base {} in steps of {} up to a ratio of {}: expected base >= step >= 1 "
          "and a ratio of 1 or more",
          base, patch, max_ratio);
  const double side = static_cast<double>(base) / static_cast<double>(patch);
  const auto count = static_cast<int64_t>(std::nearbyint(side * side));
  std::vector<ImageSize> buckets;
  for (int64_t high = count, wide = 1; high > 0;) {
    const auto longer = static_cast<double>(std::max(high, wide));
    if (longer / static_cast<double>(std::min(high, wide)) <= max_ratio) {
      buckets.push_back({high * patch, wide * patch});
    }
    if ((wide + 1) * high <= count) {
      ++wide;
    } else {
      --high;
    }
  }
  return buckets;
}

ImageSize choose_bucket(const std::vector<ImageSize>& buckets, ImageSize image) {
  require(!buckets.empty() && image.height > 0 && image.width > 0,
          "no size bucket for an image of {} x {} pixels", image.height, image.width);
  const double ratio = static_cast<double>(image.height) / static_cast<double>(image.width);
  const auto distance = [ratio](const ImageSize& size) {
    return std::abs(rounded_ratio(size) - ratio);
  };
  return *std::min_element(
      buckets.begin(), buckets.end(),
      [&](const ImageSize& a, const ImageSize& b) { return distance(a) < distance(b); });
}

at::Tensor siglip_pixels(const at::Tensor& image, int64_t size) {
  const at::Tensor resized = pillow_resize(image, size, size, ResizeFilter::kBicubic);
  const at::Tensor scaled = (resized.to(at::kDouble) * (1.0 / 255)).to(at::kFloat);
  return ((scaled - 0.5) / 0.5).permute({2, 0, 1}).unsqueeze(0).contiguous();
}

at::Tensor image_of_frame(const at::Tensor& frame) {
  require(frame.dim() == 3 && frame.size(0) == 3, "frame is [{}], expected [3, H, W]",
          fmt::join(frame.sizes(), ", "));
  const at::Tensor values = ((frame.to(at::kFloat) + 1) * 127.5).clamp(0, 255);
  return values.permute({1, 2, 0}).to(at::kByte).contiguous();
}

}  // namespace minwm::models
