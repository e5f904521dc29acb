#include "minwm/models/codec/codec.h"

#include <ATen/ATen.h>

#include "minwm/models/codec/analytic.h"

namespace minwm::models {

at::Tensor to_uint8(const at::Tensor& pixels) {
  // at::round rounds ties to even.
  return pixels.to(at::kFloat).mul(127.5).add_(127.5).clamp_(0, 255).round_().to(at::kByte);
}

std::shared_ptr<Codec> open_codec(const std::filesystem::path& path) {
  return std::make_shared<AnalyticCodec>(AnalyticCodec::load(path));
}

}  // namespace minwm::models
