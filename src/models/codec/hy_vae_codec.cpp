// The HunyuanVideo-1.5 autoencoder as a codec, and its files.

#include <algorithm>

#include "frozen.h"
#include "minwm/models/codec/hy_vae.h"
#include "minwm/models/weights_file.h"

namespace minwm::models {
namespace {

const at::Tensor& weight_at(const Tensors& tensors, const std::string& name,
                            const std::string& where) {
  const auto found = tensors.find(name);
  require(found != tensors.end() && found->second.dim() == 5, "{}: tensor {} is {}", where, name,
          found == tensors.end() ? "missing" : "not of 5 dimensions");
  return found->second;
}

}  // namespace

HyVae::HyVae(const HyVaeConfig& config, const Tensors& tensors, const std::string& where,
             const HyVaeOptions& options)
    : config_(config), options_(options), encoder_(config), decoder_(config) {
  require_compute_type(options.compute, "HunyuanVideo VAE");
  require(options.latents_per_pass >= 1,
          "HunyuanVideo VAE: latents_per_pass {}, expected 1 or more", options.latents_per_pass);
  require(config.ffactor_temporal == temporal_factor(), "{}: a temporal stride of {}, expected {}",
          where, config.ffactor_temporal, temporal_factor());
  require_finite(tensors, where);
  for (const auto& item : tensors) {
    require(item.first.starts_with("encoder.") || item.first.starts_with("decoder."),
            "{}: tensor {} is none of a HunyuanVideo VAE", where, item.first);
  }
  load_frozen(*encoder_, tensors_under(tensors, "encoder."), where);
  load_frozen(*decoder_, tensors_under(tensors, "decoder."), where);
  name_ = fmt::format("hunyuanvideo1.5-vae-{:016x}", values_hash(*encoder_));
  encoder_->to(options.compute);
  decoder_->to(options.compute);
}

at::Tensor HyVae::encode(const at::Tensor& pixels) {
  require(pixels.dim() == 5 && pixels.size(2) == config_.in_channels && pixels.numel() > 0,
          "pixels [{}] cannot be encoded: expected [B, 1 + 4 m, {}, H, W]",
          fmt::join(pixels.sizes(), ", "), config_.in_channels);
  const int64_t left = (pixels.size(1) - 1) % temporal_factor();
  if (left != 0) {
    spdlog::warn("a clip of {} frames is encoded without its last {}: expected 1 + 4 m",
                 pixels.size(1), left);
  }
  follow(*encoder_, pixels);
  const auto posterior = encoder_->encode(pixels.transpose(1, 2), options_.latents_per_pass);
  return posterior.mean().mul(config_.scaling_factor).transpose(1, 2).contiguous();
}

at::Tensor HyVae::decode_next(const at::Tensor& latents, FeatureHistory& history) {
  require(latents.dim() == 5 && latents.size(2) == config_.latent_channels && latents.numel() > 0,
          "latents [{}] cannot be decoded: expected [B, T, {}, h, w]",
          fmt::join(latents.sizes(), ", "), config_.latent_channels);
  follow(*decoder_, latents);
  const at::Tensor z = latents.to(at::kFloat).transpose(1, 2) / config_.scaling_factor;
  return decoder_->decode(z, history, options_.latents_per_pass).transpose(1, 2).contiguous();
}

bool is_hy_vae(const std::vector<std::string>& names) {
  return std::find(names.begin(), names.end(), "encoder.down.0.block.0.conv1.conv.weight") !=
         names.end();
}

HyVaeConfig hy_vae_config(const Tensors& tensors, const std::string& where) {
  HyVaeConfig config;
  config.in_channels = weight_at(tensors, "encoder.conv_in.conv.weight", where).size(1);
  config.out_channels = weight_at(tensors, "decoder.conv_out.conv.weight", where).size(0);
  config.latent_channels = weight_at(tensors, "decoder.conv_in.conv.weight", where).size(1);
  config.block_out_channels.clear();
  config.layers_per_block = 0;
  config.ffactor_spatial = config.ffactor_temporal = 1;
  const auto block = [](size_t level, int64_t i) {
    return fmt::format("encoder.down.{}.block.{}.conv1.conv.weight", level, i);
  };
  while (tensors.contains(block(0, config.layers_per_block))) {
    ++config.layers_per_block;
  }
  for (size_t i = 0; tensors.contains(block(i, 0)); ++i) {
    config.block_out_channels.push_back(weight_at(tensors, block(i, 0), where).size(0));
    const std::string down = fmt::format("encoder.down.{}.downsample.conv.conv.weight", i);
    if (!tensors.contains(down)) {
      continue;
    }
    // A block that halves the frames folds twice as many positions into the next level's width.
    const int64_t folded = weight_at(tensors, down, where).size(0);
    const int64_t next = weight_at(tensors, block(i + 1, 0), where).size(1);
    require(next == 4 * folded || next == 8 * folded,
            "{}: tensor {} has {} channels, expected a quarter or an eighth of the {} of the next "
            "level",
            where, down, folded, next);
    config.ffactor_spatial *= 2;
    config.ffactor_temporal *= next == 8 * folded ? 2 : 1;
  }
  return config;
}

std::shared_ptr<HyVae> open_hy_vae(const std::filesystem::path& path, const HyVaeOptions& options) {
  const ParameterSource source = open_weights(path).source;
  const Tensors tensors = read_all(source);
  return std::make_shared<HyVae>(hy_vae_config(tensors, source.where), tensors, source.where,
                                 options);
}

}  // namespace minwm::models
