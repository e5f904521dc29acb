// The tiny autoencoders as a codec, and their files.

#include <algorithm>

#include "frozen.h"
#include "minwm/models/codec/taehv.h"
#include "minwm/models/weights_file.h"

namespace minwm::models {
namespace {

const at::Tensor& weight_at(const Tensors& tensors, const std::string& name,
                            const std::string& where) {
  const auto found = tensors.find(name);
  require(found != tensors.end() && found->second.dim() == 4, "{}: tensor {} is {}", where, name,
          found == tensors.end() ? "missing" : "not of 4 dimensions");
  return found->second;
}

/// The decoder's tensors, with the weights of time steps that are off cut to their last rows.
Tensors decoder_tensors(const TaehvConfig& config, const Tensors& tensors) {
  Tensors chosen = tensors_under(tensors, "decoder.");
  const bool base = config.arch == TaehvArch::kBase;
  for (size_t i = 0; i < config.time_upscale.size(); ++i) {
    const auto found =
        chosen.find(fmt::format("decoder.{}.conv.weight", base ? 7 + 6 * i : 7 * (i + 1)));
    const int64_t width = config.decoder_widths[base ? i : i + 1];
    if (found != chosen.end() && !config.time_upscale[i] && found->second.dim() == 4 &&
        found->second.size(0) == 2 * width) {
      found->second = found->second.narrow(0, width, width);
    }
  }
  return chosen;
}

}  // namespace

TaehvCodec::TaehvCodec(const TaehvConfig& config, const Tensors& tensors, const std::string& where,
                       at::ScalarType compute)
    : config_(config), encoder_(config), decoder_(config) {
  require_compute_type(compute, "TAEHV");
  require_finite(tensors, where);
  for (const auto& item : tensors) {
    require(item.first.starts_with("encoder.") || item.first.starts_with("decoder."),
            "{}: tensor {} is none of a TAEHV autoencoder", where, item.first);
  }
  load_frozen(*encoder_, tensors_under(tensors, "encoder."), where);
  load_frozen(*decoder_, decoder_tensors(config, tensors), where);
  name_ = fmt::format("taehv-{:016x}", values_hash(*encoder_));
  encoder_->to(compute);
  decoder_->to(compute);
}

at::Tensor TaehvCodec::encode(const at::Tensor& pixels) {
  const int64_t s = spatial_factor();
  require(pixels.dim() == 5 && pixels.size(2) == 3 && pixels.size(3) % s == 0 &&
              pixels.size(4) % s == 0 && pixels.numel() > 0,
          "pixels [{}] cannot be encoded: expected [B, 1 + 4 m, 3, H, W] with H and W multiples of "
          "{}",
          fmt::join(pixels.sizes(), ", "), s);
  follow(*encoder_, pixels);
  return encoder_->encode(pixels.to(at::kFloat).add(1).div_(2)).contiguous();
}

at::Tensor TaehvCodec::decode_next(const at::Tensor& latents, FeatureHistory& history) {
  follow(*decoder_, latents);
  return decoder_->decode(latents, history).mul(2).sub_(1).contiguous();
}

bool is_taehv(const std::vector<std::string>& names) {
  const auto has = [&](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  return has("encoder.2.conv.weight") && has("decoder.22.weight");
}

TaehvConfig taehv_config(const Tensors& tensors, const std::string& where) {
  TaehvConfig config;
  const auto size = [&](const std::string& name, int64_t dim) {
    return weight_at(tensors, name + ".weight", where).size(dim);
  };
  const bool super = tensors.contains("decoder.0.weight");
  config.arch = super ? TaehvArch::kSuper : TaehvArch::kBase;
  config.encoder_width = size("encoder.0", 0);
  const int64_t inputs = size("encoder.0", 1);
  config.patch_size = 1;
  while (3 * config.patch_size * config.patch_size < inputs) {
    ++config.patch_size;
  }
  require(3 * config.patch_size * config.patch_size == inputs,
          "{}: tensor encoder.0.weight has {} input channels, expected 3 p²", where, inputs);
  config.latent_channels = size("encoder.17", 0);
  config.decoder_widths =
      super ? std::vector<int64_t>{size("decoder.0", 0), size("decoder.4", 0) / 4,
                                   size("decoder.11", 0) / 4, size("decoder.18", 0) / 4}
            : std::vector<int64_t>{size("decoder.1", 0), size("decoder.8", 0),
                                   size("decoder.14", 0), size("decoder.20", 0)};
  return config;
}

std::shared_ptr<TaehvCodec> open_taehv(const std::filesystem::path& path, at::ScalarType compute) {
  const ParameterSource source = open_weights(path).source;
  const Tensors tensors = read_all(source);
  return std::make_shared<TaehvCodec>(taehv_config(tensors, source.where), tensors, source.where,
                                      compute);
}

}  // namespace minwm::models
