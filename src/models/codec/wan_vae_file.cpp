// Files of the Wan2.1 autoencoder: which they are, their names, their sizes.

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "minwm/core/error.h"
#include "minwm/models/codec/wan_vae.h"
#include "minwm/models/weights_file.h"

namespace minwm::models {
namespace {

using Tensors = std::map<std::string, at::Tensor>;
using Renaming = std::pair<std::string_view, std::string_view>;

constexpr std::string_view kOurs = "encoder.downsamples.0.residual.2.weight";
constexpr std::string_view kDiffusers = "encoder.down_blocks.0.conv1.weight";

// Beginnings of names outside of the lists of blocks, below "encoder." or "decoder.".
constexpr auto kParts = std::to_array<Renaming>({
    {"conv_in.", "conv1."},
    {"conv_out.", "head.2."},
    {"norm_out.", "head.0."},
    {"mid_block.resnets.0.", "middle.0."},
    {"mid_block.attentions.0.", "middle.1."},
    {"mid_block.resnets.1.", "middle.2."},
});
// What follows the number of a block with residual.
constexpr auto kResidual = std::to_array<Renaming>({
    {"norm1.", "residual.0."},
    {"conv1.", "residual.2."},
    {"norm2.", "residual.3."},
    {"conv2.", "residual.6."},
    {"conv_shortcut.", "shortcut."},
});

/// `name` with the first beginning that fits replaced.
template <size_t N>
std::optional<std::string> renamed(std::string_view name, const std::array<Renaming, N>& table) {
  for (const auto& [theirs, ours] : table) {
    if (name.starts_with(theirs)) {
      return std::string(ours) + std::string(name.substr(theirs.size()));
    }
  }
  return std::nullopt;
}

/// What follows a block: with a residual's names, or a resample's, which are the same.
std::string block_name(std::string_view name) {
  return renamed(name, kResidual).value_or(std::string(name));
}

/// Takes a beginning off a name.
bool take(std::string_view& name, std::string_view beginning) {
  if (!name.starts_with(beginning)) {
    return false;
  }
  name.remove_prefix(beginning.size());
  return true;
}

/// Takes "12." off a name.
std::optional<int64_t> take_number(std::string_view& name) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const size_t used = static_cast<size_t>(end - name.data());
  if (error != std::errc() || used >= name.size() || name[used] != '.' || number < 0) {
    return std::nullopt;
  }
  name.remove_prefix(used + 1);
  return number;
}

/// up_blocks.I.resnets.J. and up_blocks.I.upsamplers.0. as one list; each of them has `residuals`
/// of the former.
std::optional<std::string> up_block_name(std::string_view rest, int64_t residuals) {
  const auto level = take_number(rest);
  if (!level) {
    return std::nullopt;
  }
  int64_t index = residuals;
  if (take(rest, "resnets.")) {
    const auto number = take_number(rest);
    if (!number || *number >= residuals) {
      return std::nullopt;
    }
    index = *number;
  } else if (!take(rest, "upsamplers.0.")) {
    return std::nullopt;
  }
  return fmt::format("upsamples.{}.{}", *level * (residuals + 1) + index, block_name(rest));
}

std::optional<std::string> published_name(const std::string& name, int64_t residuals) {
  std::string_view rest = name;
  if (take(rest, "quant_conv.")) {
    return "conv1." + std::string(rest);
  }
  if (take(rest, "post_quant_conv.")) {
    return "conv2." + std::string(rest);
  }
  const bool encoder = take(rest, "encoder.");
  if (!encoder && !take(rest, "decoder.")) {
    return std::nullopt;
  }
  const std::string part = encoder ? "encoder." : "decoder.";
  std::optional<std::string> ours;
  if (encoder && take(rest, "down_blocks.")) {
    if (const auto number = take_number(rest)) {
      ours = fmt::format("downsamples.{}.{}", *number, block_name(rest));
    }
  } else if (!encoder && take(rest, "up_blocks.")) {
    ours = up_block_name(rest, residuals);
  } else if (const auto found = renamed(rest, kParts)) {
    const auto dot = found->starts_with("middle.") ? found->find('.', 7) + 1 : found->size();
    ours = found->substr(0, dot) + (dot < found->size() ? block_name(found->substr(dot)) : "");
  }
  return ours ? std::optional(part + *ours) : std::nullopt;
}

const at::Tensor& tensor_at(const Tensors& tensors, const std::string& name,
                            const std::string& where) {
  const auto found = tensors.find(name);
  require(found != tensors.end() && found->second.dim() > 0, "{}: tensor {} is missing", where,
          name);
  return found->second;
}

/// One more than the largest number that follows `prefix`.
int64_t list_length(const Tensors& tensors, std::string_view prefix) {
  int64_t length = 0;
  for (const auto& item : tensors) {
    std::string_view rest = item.first;
    if (take(rest, prefix)) {
      length = std::max(length, take_number(rest).value_or(-1) + 1);
    }
  }
  return length;
}

}  // namespace

bool is_wan_vae(const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return name == kOurs || name == kDiffusers; });
}

Tensors published_wan_vae_names(const Tensors& tensors, const std::string& where) {
  if (!tensors.contains(std::string(kDiffusers))) {
    return tensors;
  }
  int64_t residuals = 0;
  while (tensors.contains(fmt::format("decoder.up_blocks.0.resnets.{}.conv1.weight", residuals))) {
    ++residuals;
  }
  Tensors published;
  for (const auto& [name, tensor] : tensors) {
    const auto ours = published_name(name, residuals);
    require(ours.has_value(), "{}: tensor {} is none of diffusers' Wan VAE", where, name);
    published[*ours] = tensor;
  }
  return published;
}

WanVaeConfig wan_vae_config(const Tensors& tensors, const std::string& where) {
  WanVaeConfig config;
  config.dim = tensor_at(tensors, "encoder.conv1.weight", where).size(0);
  config.z_dim = tensor_at(tensors, "conv2.weight", where).size(0);
  require(config.dim > 0, "{}: tensor encoder.conv1.weight is empty", where);
  config.dim_mult.clear();
  config.temporal_downsample.clear();
  int64_t in_level = 0, width = config.dim;
  const int64_t blocks = list_length(tensors, "encoder.downsamples.");
  for (int64_t i = 0; i < blocks; ++i) {
    const std::string block = fmt::format("encoder.downsamples.{}.", i);
    if (tensors.contains(block + "resample.1.weight") && in_level > 0) {
      config.dim_mult.push_back(width / config.dim);
      config.temporal_downsample.push_back(tensors.contains(block + "time_conv.weight"));
      in_level = 0;
      continue;
    }
    width = tensor_at(tensors, block + "residual.2.weight", where).size(0);
    require(width > 0 && width % config.dim == 0,
            "{}: tensor {}residual.2.weight has {} channels, expected a multiple of {}", where,
            block, width, config.dim);
    ++in_level;
  }
  config.num_res_blocks = in_level;  // of the last level; loading checks the others
  config.dim_mult.push_back(width / config.dim);
  return config;
}

WanVae WanVae::load(const std::filesystem::path& path, const WanVaeOptions& options) {
  const ParameterSource source = open_weights(path).source;
  const std::string& where = source.where;
  std::vector<std::string> names;
  for (const auto& item : source.shapes) {
    names.push_back(item.first);
  }
  require(is_wan_vae(names), "{}: not a Wan2.1 VAE (tensor {} expected)", where, kOurs);
  const Tensors tensors = published_wan_vae_names(read_all(source), where);
  return {wan_vae_config(tensors, where), tensors, where, options};
}

}  // namespace minwm::models
