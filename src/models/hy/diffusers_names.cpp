#include "minwm/models/hy/diffusers_names.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;

// Beginnings of names outside of blocks.
constexpr auto kRoot = std::to_array<Renaming>({
    {"x_embedder.proj.", "img_in.proj."},
    {"time_embed.timestep_embedder.linear_1.", "time_in.mlp.0."},
    {"time_embed.timestep_embedder.linear_2.", "time_in.mlp.2."},
    {"context_embedder.proj_in.", "txt_in.input_embedder."},
    {"context_embedder.time_text_embed.timestep_embedder.linear_1.", "txt_in.t_embedder.mlp.0."},
    {"context_embedder.time_text_embed.timestep_embedder.linear_2.", "txt_in.t_embedder.mlp.2."},
    {"context_embedder.time_text_embed.text_embedder.linear_1.", "txt_in.c_embedder.linear_1."},
    {"context_embedder.time_text_embed.text_embedder.linear_2.", "txt_in.c_embedder.linear_2."},
    {"context_embedder_2.norm.", "byt5_in.layernorm."},
    {"context_embedder_2.linear_1.", "byt5_in.fc1."},
    {"context_embedder_2.linear_2.", "byt5_in.fc2."},
    {"context_embedder_2.linear_3.", "byt5_in.fc3."},
    {"image_embedder.norm_in.", "vision_in.proj.0."},
    {"image_embedder.linear_1.", "vision_in.proj.1."},
    {"image_embedder.linear_2.", "vision_in.proj.3."},
    {"image_embedder.norm_out.", "vision_in.proj.4."},
    {"cond_type_embed.", "cond_type_embedding."},
    {"norm_out.linear.", "final_layer.adaLN_modulation.1."},
    {"proj_out.", "final_layer.linear."},
});

constexpr std::string_view kBlocks = "transformer_blocks.", kOurBlocks = "double_blocks.";
// What follows a block's number.
constexpr auto kBlock = std::to_array<Renaming>({
    {"norm1.linear.", "img_mod.linear."},
    {"norm1_context.linear.", "txt_mod.linear."},
    {"attn.to_q.", "img_attn_q."},
    {"attn.to_k.", "img_attn_k."},
    {"attn.to_v.", "img_attn_v."},
    {"attn.add_q_proj.", "txt_attn_q."},
    {"attn.add_k_proj.", "txt_attn_k."},
    {"attn.add_v_proj.", "txt_attn_v."},
    {"attn.norm_q.", "img_attn_q_norm."},
    {"attn.norm_k.", "img_attn_k_norm."},
    {"attn.norm_added_q.", "txt_attn_q_norm."},
    {"attn.norm_added_k.", "txt_attn_k_norm."},
    {"attn.to_out.0.", "img_attn_proj."},
    {"attn.to_add_out.", "txt_attn_proj."},
    {"ff.net.0.proj.", "img_mlp.fc1."},
    {"ff.net.2.", "img_mlp.fc2."},
    {"ff_context.net.0.proj.", "txt_mlp.fc1."},
    {"ff_context.net.2.", "txt_mlp.fc2."},
});

constexpr std::string_view kRefiner = "context_embedder.token_refiner.refiner_blocks.",
                           kOurRefiner = "txt_in.individual_token_refiner.blocks.";
constexpr auto kRefinerBlock = std::to_array<Renaming>({
    {"norm1.", "norm1."},
    {"norm2.", "norm2."},
    {"attn.to_out.0.", "self_attn_proj."},
    {"ff.net.0.proj.", "mlp.fc1."},
    {"ff.net.2.", "mlp.fc2."},
    {"norm_out.linear.", "adaLN_modulation.1."},
});
// Rows of self_attn_qkv, in this order.
constexpr auto kJoined =
    std::to_array<std::string_view>({"attn.to_q.", "attn.to_k.", "attn.to_v."});
constexpr std::string_view kJoin = "self_attn_qkv.";
constexpr std::string_view kFinalModulation = "final_layer.adaLN_modulation.1.";

template <size_t N>
std::string renamed(std::string_view name, const std::array<Renaming, N>& table) {
  for (const auto& [theirs, ours] : table) {
    if (name.starts_with(theirs)) {
      return std::string(ours).append(name.substr(theirs.size()));
    }
  }
  return "";
}

/// "PREFIX" "7." "rest" → "7." and "rest".
std::pair<std::string_view, std::string_view> split_number(std::string_view name,
                                                           std::string_view prefix) {
  const std::string_view behind = name.substr(prefix.size());
  const size_t dot = behind.find('.');
  return dot == std::string_view::npos
             ? std::pair{std::string_view(), behind}
             : std::pair{behind.substr(0, dot + 1), behind.substr(dot + 1)};
}

/// Our name of a parameter that is in one piece there; empty if it is none.
std::string our_name(std::string_view name) {
  const auto in_block = [&](std::string_view theirs, std::string_view ours, const auto& table) {
    const auto [number, rest] = split_number(name, theirs);
    const std::string own = renamed(rest, table);
    return own.empty() ? own : std::string(ours).append(number).append(own);
  };
  if (name.starts_with(kBlocks)) {
    return in_block(kBlocks, kOurBlocks, kBlock);
  }
  if (name.starts_with(kRefiner)) {
    return in_block(kRefiner, kOurRefiner, kRefinerBlock);
  }
  return renamed(name, kRoot);
}

/// Elements [begin, begin + count) of one of their tensors.
struct Piece {
  std::string name;
  int64_t begin, count;
};
using Pieces = std::vector<Piece>;

struct Layout {
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, Pieces> pieces;
};

/// The one of ours that `name`, a part of it, starts: all parts must be there.
void add_joined(const ParameterSource& source, const std::string& name, Layout& layout) {
  const auto [number, rest] = split_number(name, kRefiner);
  const std::string_view kind = rest.substr(kJoined.front().size());  // weight or bias
  const auto& first = source.shapes.at(name);
  require(!first.empty(), "{}: '{}' is a single number, expected rows", source.where, name);
  const std::string own = std::string(kOurRefiner).append(number).append(kJoin).append(kind);
  for (const auto& part : kJoined) {
    const std::string other = std::string(kRefiner).append(number).append(part).append(kind);
    const auto found = source.shapes.find(other);
    require(found != source.shapes.end(), "{}: lacks '{}', a part of {}", source.where, other, own);
    require(found->second == first, "{}: '{}' has shape {}, expected {} as '{}'", source.where,
            other, c10::str(at::IntArrayRef(found->second)), c10::str(at::IntArrayRef(first)),
            name);
    layout.pieces[own].push_back({other, 0, c10::multiply_integers(first)});
  }
  auto shape = first;
  shape.front() *= static_cast<int64_t>(kJoined.size());
  layout.shapes[own] = shape;
}

void add(const ParameterSource& source, const std::string& name, Layout& layout) {
  if (name.starts_with(kRefiner)) {
    const auto [number, rest] = split_number(name, kRefiner);
    const auto part = std::find_if(kJoined.begin(), kJoined.end(),
                                   [&](const auto& each) { return rest.starts_with(each); });
    if (part == kJoined.begin()) {
      add_joined(source, name, layout);
    }
    if (part != kJoined.end()) {
      return;
    }
  }
  const auto& shape = source.shapes.at(name);
  std::string own = our_name(name);
  own = own.empty() ? name : own;
  require(!layout.shapes.contains(own), "{}: has '{}' twice, under two names", source.where, own);
  layout.shapes[own] = shape;
  const int64_t all = c10::multiply_integers(shape);
  if (own.starts_with(kFinalModulation)) {
    layout.pieces[own] = {{name, all / 2, all - all / 2}, {name, 0, all / 2}};
  } else {
    layout.pieces[own] = {{name, 0, all}};
  }
}

at::Tensor read_pieces(const ParameterSource& source, const Pieces& pieces, int64_t begin,
                       int64_t count) {
  std::vector<at::Tensor> parts;
  int64_t start = 0;  // of the piece, in our parameter
  for (const auto& piece : pieces) {
    const int64_t from = std::max(begin, start), to = std::min(begin + count, start + piece.count);
    if (from < to) {
      parts.push_back(source.read(piece.name, piece.begin + from - start, to - from));
    }
    start += piece.count;
  }
  return parts.empty() ? at::empty({0}) : parts.size() == 1 ? parts.front() : at::cat(parts);
}

}  // namespace

bool has_diffusers_names(const ParameterSource& source) {
  return source.shapes.contains("x_embedder.proj.weight") &&
         source.shapes.contains("context_embedder.proj_in.weight");
}

ParameterSource from_diffusers(const ParameterSource& source) {
  Layout layout;
  for (const auto& [name, shape] : source.shapes) {
    add(source, name, layout);
  }
  ParameterSource out;
  out.where = source.where;
  out.shapes = std::move(layout.shapes);
  out.read = [source, pieces = std::move(layout.pieces)](const std::string& name, int64_t begin,
                                                         int64_t count) {
    return read_pieces(source, pieces.at(name), begin, count);
  };
  return out;
}

}  // namespace minwm::models
