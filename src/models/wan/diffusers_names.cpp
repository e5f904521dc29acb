#include "minwm/models/wan/diffusers_names.h"

#include <array>
#include <string_view>
#include <utility>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;

// Beginnings of names outside of blocks.
constexpr auto kRoot = std::to_array<Renaming>({
    {"condition_embedder.time_embedder.linear_1.", "time_embedding.0."},
    {"condition_embedder.time_embedder.linear_2.", "time_embedding.2."},
    {"condition_embedder.text_embedder.linear_1.", "text_embedding.0."},
    {"condition_embedder.text_embedder.linear_2.", "text_embedding.2."},
    {"condition_embedder.time_proj.", "time_projection.1."},
    {"condition_embedder.image_embedder.norm1.", "img_emb.proj.0."},
    {"condition_embedder.image_embedder.ff.net.0.proj.", "img_emb.proj.1."},
    {"condition_embedder.image_embedder.ff.net.2.", "img_emb.proj.3."},
    {"condition_embedder.image_embedder.norm2.", "img_emb.proj.4."},
    {"scale_shift_table", "head.modulation"},
    {"proj_out.", "head.head."},
});

constexpr std::string_view kBlocks = "blocks.";
// What follows a block's number: a module, then what it holds.
constexpr auto kBlock = std::to_array<Renaming>({
    {"attn1.", "self_attn."},
    {"attn2.", "cross_attn."},
    {"norm2.", "norm3."},
    {"ffn.net.0.proj.", "ffn.0."},
    {"ffn.net.2.", "ffn.2."},
    {"scale_shift_table", "modulation"},
});
constexpr auto kAttention = std::to_array<Renaming>({
    {"to_q.", "q."},
    {"to_k.", "k."},
    {"to_v.", "v."},
    {"to_out.0.", "o."},
    {"add_k_proj.", "k_img."},
    {"add_v_proj.", "v_img."},
    {"norm_added_k.", "norm_k_img."},
});

/// The name with its beginning exchanged, as it is if none fits.
template <size_t N>
std::string renamed(std::string_view name, const std::array<Renaming, N>& table) {
  for (const auto& [theirs, ours] : table) {
    if (name.starts_with(theirs)) {
      return std::string(ours).append(name.substr(theirs.size()));
    }
  }
  return std::string(name);
}

std::string our_name(std::string_view name) {
  const size_t dot = name.find('.', kBlocks.size());
  if (!name.starts_with(kBlocks) || dot == std::string_view::npos) {
    return renamed(name, kRoot);
  }
  std::string rest = renamed(name.substr(dot + 1), kBlock);
  for (const std::string_view attention : {"self_attn.", "cross_attn."}) {
    if (rest.starts_with(attention)) {
      rest = std::string(attention).append(
          renamed(std::string_view(rest).substr(attention.size()), kAttention));
    }
  }
  return std::string(name.substr(0, dot + 1)).append(rest);
}

}  // namespace

bool has_wan_diffusers_names(const ParameterSource& source) {
  return source.shapes.contains("condition_embedder.time_proj.weight") &&
         source.shapes.contains("patch_embedding.weight");
}

ParameterSource from_wan_diffusers(const ParameterSource& source) {
  std::map<std::string, std::string> theirs;
  ParameterSource out;
  out.where = source.where;
  for (const auto& [name, shape] : source.shapes) {
    const std::string own = our_name(name);
    require(theirs.emplace(own, name).second, "{}: has '{}' twice, under two names", source.where,
            own);
    out.shapes[own] = shape;
  }
  out.read = [read = source.read, theirs = std::move(theirs)](const std::string& name,
                                                              int64_t begin, int64_t count) {
    return read(theirs.at(name), begin, count);
  };
  return out;
}

}  // namespace minwm::models
