#include "minwm/models/text/hf_names.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "minwm/models/encoder_parts.h"

namespace minwm::models {
namespace {

struct Names {
  std::string_view wan, hf;
};

constexpr std::string_view kWanBlocks = "blocks.", kHfBlocks = "block.", kEncoder = "encoder.";
constexpr const char* kSharedBias = "pos_embedding.embedding.weight";
constexpr const char* kFirstBias = "blocks.0.pos_embedding.embedding.weight";
constexpr auto kRoot = std::to_array<Names>({
    {"token_embedding.", "embed_tokens."},
    {"norm.", "final_layer_norm."},
});
// What follows a block's number. The bias table first: its name begins as the attention's.
constexpr auto kBlock = std::to_array<Names>({
    {"pos_embedding.embedding.", "layer.0.SelfAttention.relative_attention_bias."},
    {"norm1.", "layer.0.layer_norm."},
    {"attn.", "layer.0.SelfAttention."},
    {"norm2.", "layer.1.layer_norm."},
    {"ffn.gate.0.", "layer.1.DenseReluDense.wi_0."},
    {"ffn.fc1.", "layer.1.DenseReluDense.wi_1."},
    {"ffn.fc2.", "layer.1.DenseReluDense.wo."},
});

/// The name with its beginning exchanged, from the names `from` to those of `to`.
template <size_t N>
std::string exchanged(std::string_view name, const std::array<Names, N>& table,
                      std::string_view Names::*from, std::string_view Names::*to) {
  for (const auto& entry : table) {
    if (name.starts_with(entry.*from)) {
      return std::string(entry.*to).append(name.substr((entry.*from).size()));
    }
  }
  return std::string(name);
}

std::string translated(std::string_view name, std::string_view from_blocks,
                       std::string_view to_blocks, std::string_view Names::*from,
                       std::string_view Names::*to) {
  const size_t dot = name.find('.', from_blocks.size());
  if (!name.starts_with(from_blocks) || dot == std::string_view::npos) {
    return exchanged(name, kRoot, from, to);
  }
  const std::string_view number = name.substr(from_blocks.size(), dot + 1 - from_blocks.size());
  return std::string(to_blocks).append(number) + exchanged(name.substr(dot + 1), kBlock, from, to);
}

/// "" for what is no part of the encoder.
std::string wan_name(std::string_view name, bool second_embedding) {
  if (name == "shared.weight") {
    return second_embedding ? "" : "token_embedding.weight";
  }
  if (name.starts_with("decoder.") || name.starts_with("lm_head.")) {
    return "";
  }
  if (name.starts_with(kEncoder)) {
    name.remove_prefix(kEncoder.size());
  }
  return translated(name, kHfBlocks, kWanBlocks, &Names::hf, &Names::wan);
}

}  // namespace

std::string t5_hf_name(const std::string& wan) {
  return translated(wan == kSharedBias ? kFirstBias : wan, kWanBlocks, kHfBlocks, &Names::wan,
                    &Names::hf);
}

bool has_t5_hf_names(const ParameterSource& source) {
  return std::any_of(source.shapes.begin(), source.shapes.end(), [](const auto& item) {
    return item.first.find(".SelfAttention.") != std::string::npos;
  });
}

ParameterSource from_t5_hf(const ParameterSource& source) {
  const bool second = source.shapes.contains("encoder.embed_tokens.weight") ||
                      source.shapes.contains("embed_tokens.weight");
  auto out = renamed(source, [second](const auto& name) { return wan_name(name, second); });
  const bool several = out.shapes.contains("blocks.1.norm1.weight");
  if (!several || out.shapes.contains("blocks.1.pos_embedding.embedding.weight")) {
    return out;
  }
  return renamed(out, [](const std::string& name) {
    return name == kFirstBias ? std::string(kSharedBias) : name;
  });
}

}  // namespace minwm::models
