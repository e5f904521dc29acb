#include "minwm/models/codec/codec.h"

#include <ATen/ATen.h>

#include "minwm/core/safetensors.h"
#include "minwm/models/codec/analytic.h"
#include "minwm/models/codec/hy_vae.h"
#include "minwm/models/codec/taehv.h"
#include "minwm/models/codec/wan_vae.h"
#include "minwm/models/weights_file.h"

namespace minwm::models {
namespace {

/// Of the tensors in a codec's file; published weights may also be a PyTorch file or a folder.
std::vector<std::string> names_of(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (!std::filesystem::is_directory(path) && extension != ".pt" && extension != ".pth" &&
      extension != ".json") {
    return Safetensors(path).names();
  }
  std::vector<std::string> names;
  for (const auto& item : open_weights(path).source.shapes) {
    names.push_back(item.first);
  }
  return names;
}

}  // namespace

at::Tensor to_uint8(const at::Tensor& pixels) {
  // at::round rounds ties to even.
  return pixels.to(at::kFloat).mul(127.5).add_(127.5).clamp_(0, 255).round_().to(at::kByte);
}

std::shared_ptr<Codec> open_codec(const std::filesystem::path& path) {
  const auto names = names_of(path);
  if (is_wan_vae(names)) {
    return std::make_shared<WanVae>(WanVae::load(path));
  }
  if (is_hy_vae(names)) {
    return open_hy_vae(path);
  }
  if (is_taehv(names)) {
    return open_taehv(path);
  }
  return std::make_shared<AnalyticCodec>(AnalyticCodec::load(path));
}

}  // namespace minwm::models
