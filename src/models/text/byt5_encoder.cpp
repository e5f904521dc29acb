#include "minwm/models/text/byt5_encoder.h"

#include <algorithm>
#include <string_view>

namespace minwm::models {
namespace {

constexpr std::string_view kTower = "text_tower.encoder.", kWrapper = "module.";

/// What follows the tower's prefix, "" outside of it.
std::string in_tower(std::string_view name) {
  if (name.starts_with(kWrapper)) {
    name.remove_prefix(kWrapper.size());
  }
  return name.starts_with(kTower) ? std::string(name.substr(kTower.size())) : std::string();
}

}  // namespace

T5Config byt5_small(int64_t colors, int64_t fonts) {
  return {.name = "byT5",
          .vocab_size = kByt5Tokens + colors + fonts,
          .dim = 1472,
          .dim_attn = 384,
          .dim_ffn = 3584,
          .num_heads = 6,
          .num_layers = 12,
          .shared_bias = true,
          .names = T5Names::kHuggingFace};
}

ParameterSource byt5_source(const ParameterSource& source) {
  const bool whole = std::none_of(source.shapes.begin(), source.shapes.end(),
                                  [](const auto& item) { return !in_tower(item.first).empty(); });
  return whole ? source : renamed(source, in_tower);
}

GlyphStates encode_glyphs(const T5Encoder& encoder, const at::Tensor& ids, const at::Tensor& mask) {
  return {encoder.encode(ids, mask), mask.to(at::kLong)};
}

}  // namespace minwm::models
