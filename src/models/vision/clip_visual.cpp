#include "minwm/models/vision/clip_visual.h"

#include <array>
#include <charconv>
#include <string_view>

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/nn/attention.h"

namespace minwm::models {
namespace {

constexpr const char* kName = "CLIP";
constexpr std::string_view kVisual = "visual.", kBlocks = "visual.transformer.";
constexpr std::array<float, 3> kMean = {0.48145466F, 0.4578275F, 0.40821073F};
constexpr std::array<float, 3> kDeviation = {0.26862954F, 0.26130258F, 0.27577711F};

bool needed(std::string_view name, int64_t blocks) {
  if (!name.starts_with(kVisual) || name == "visual.head" ||
      name.starts_with("visual.post_norm.")) {
    return false;
  }
  int64_t index = -1;
  if (name.starts_with(kBlocks)) {
    std::from_chars(name.data() + kBlocks.size(), name.data() + name.size(), index);
  }
  return index < blocks;
}

}  // namespace

void ClipVisualConfig::check() const {
  require(dim > 0 && mlp_ratio > 0 && blocks_used >= 0,
          "{}: width {}, ratio {} and {} blocks must be positive", kName, dim, mlp_ratio,
          blocks_used);
  require(num_heads > 0 && dim % num_heads == 0, "{}: {} heads do not divide a width of {}", kName,
          num_heads, dim);
  require(patch_size > 0 && image_size >= patch_size, "{}: patches of {} in an image of {} pixels",
          kName, patch_size, image_size);
}

ClipVisual::ClipVisual(const ClipVisualConfig& config, at::ScalarType type) : config_(config) {
  config_.check();
  require_compute_type(type, kName);
  const FrozenWeights weights(*this, type);
  const int64_t dim = config_.dim, patch = config_.patch_size;
  patch_weight_ = weights("visual.patch_embedding.weight", {dim, 3, patch, patch});
  cls_ = weights("visual.cls_embedding", {1, 1, dim});
  positions_ = weights("visual.pos_embedding", {1, 1 + config_.patches(), dim});
  pre_norm_.emplace(weights, "visual.pre_norm", dim, config_.eps);
  for (int64_t i = 0; i < config_.blocks_used; ++i) {
    blocks_.push_back(make_block(weights, i));
  }
}

ClipVisual::Block ClipVisual::make_block(const FrozenWeights& weights, int64_t index) const {
  const int64_t dim = config_.dim, wide = config_.mlp_ratio * dim;
  const std::string prefix = fmt::format("{}{}.", kBlocks, index);
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return FrozenLinear(weights, prefix + name, in, out, true);
  };
  return {.norm1 = FrozenLayerNorm(weights, prefix + "norm1", dim, config_.eps),
          .norm2 = FrozenLayerNorm(weights, prefix + "norm2", dim, config_.eps),
          .qkv = linear("attn.to_qkv", dim, 3 * dim),
          .proj = linear("attn.proj", dim, dim),
          .fc1 = linear("mlp.0", dim, wide),
          .fc2 = linear("mlp.2", wide, dim)};
}

at::Tensor ClipVisual::run_block(const Block& block, at::Tensor x) const {
  const auto rows = block.qkv(block.norm1(x)).unflatten(2, {3, config_.num_heads, -1}).unbind(2);
  x = x + block.proj(nn::attend(rows[0], rows[1], rows[2]).flatten(2));
  return x + block.fc2(at::gelu(block.fc1(block.norm2(x))));
}

at::Tensor ClipVisual::forward(const at::Tensor& pixels) const {
  at::NoGradGuard no_grad;
  const int64_t size = config_.image_size;
  require(
      pixels.dim() == 4 && pixels.size(1) == 3 && pixels.size(2) == size && pixels.size(3) == size,
      "{}: pixels are [{}], expected [B, 3, {}, {}]", kName, fmt::join(pixels.sizes(), ", "), size,
      size);
  const at::Tensor patches =
      at::conv2d(pixels.to(patch_weight_.options()), patch_weight_, {}, config_.patch_size);
  const at::Tensor tokens = patches.flatten(2).transpose(1, 2);
  at::Tensor x = at::cat({cls_.expand({tokens.size(0), 1, -1}), tokens}, 1) + positions_;
  x = (*pre_norm_)(x);
  for (const auto& block : blocks_) {
    x = run_block(block, x);
  }
  return x;
}

ParameterSource clip_visual_source(const ParameterSource& source, const ClipVisualConfig& config) {
  return renamed(source, [blocks = config.blocks_used](const std::string& name) {
    return needed(name, blocks) ? name : std::string();
  });
}

at::Tensor clip_pixels(const at::Tensor& frames, int64_t size) {
  require(frames.dim() == 4 && frames.size(1) == 3 && frames.numel() > 0 && size > 0,
          "{}: frames are [{}], expected [B, 3, H, W]", kName, fmt::join(frames.sizes(), ", "));
  const auto channels = [&](const std::array<float, 3>& values) {
    return at::tensor(at::ArrayRef<float>(values)).view({1, 3, 1, 1}).to(frames.device());
  };
  const at::Tensor resized =
      at::upsample_bicubic2d(frames.to(at::kFloat), {size, size}, /*align_corners=*/false);
  return (resized * 0.5 + 0.5 - channels(kMean)) / channels(kDeviation);
}

}  // namespace minwm::models
