// The Wan2.1 autoencoder as a codec: layouts, statistics, what is refused.

#include "frozen.h"
#include "minwm/models/codec/wan_vae.h"

namespace minwm::models {
namespace {

bool encodes(const std::string& name) {
  return name.starts_with("encoder.") || name.starts_with("conv1.");
}

/// Of the tensors that encode, or of the others.
Tensors half(const Tensors& tensors, bool encoder) {
  Tensors chosen;
  for (const auto& item : tensors) {
    if (encodes(item.first) == encoder) {
      chosen.insert(item);
    }
  }
  return chosen;
}

}  // namespace

void WanVaeOptions::check() const {
  require_compute_type(compute, "Wan VAE");
  require(latents_per_pass >= 1, "Wan VAE: latents_per_pass {}, expected 1 or more",
          latents_per_pass);
}

WanVae::WanVae(const WanVaeConfig& config, const Tensors& tensors, const std::string& where,
               const WanVaeOptions& options)
    : config_(config), options_(options), encoder_(config), decoder_(config) {
  options.check();
  require(config.z_dim == LatentStatistics::wan().mean.size(0),
          "{}: {} latent channels, expected 16: statistics of others are not known", where,
          config.z_dim);
  require(config.temporal_factor() == temporal_factor(), "{}: a temporal stride of {}, expected {}",
          where, config.temporal_factor(), temporal_factor());
  require_finite(tensors, where);
  load_frozen(*encoder_, half(tensors, true), where);
  load_frozen(*decoder_, half(tensors, false), where);
  name_ = fmt::format("wan2.1-vae-{:016x}", values_hash(*encoder_));
  encoder_->to(options.compute);
  decoder_->to(options.compute);
}

at::Tensor WanVae::encode(const at::Tensor& pixels) {
  const int64_t s = spatial_factor();
  require(pixels.dim() == 5 && pixels.size(2) == 3 && pixels.size(3) % s == 0 &&
              pixels.size(4) % s == 0 && pixels.numel() > 0,
          "pixels [{}] cannot be encoded: expected [B, 1 + 4 m, 3, H, W] with H and W multiples of "
          "{}",
          fmt::join(pixels.sizes(), ", "), s);
  const int64_t left = (pixels.size(1) - 1) % temporal_factor();
  if (left != 0) {
    require(!options_.strict, "a clip of {} frames cannot be encoded: expected 1 + 4 m",
            pixels.size(1));
    spdlog::warn("a clip of {} frames is encoded without its last {}: expected 1 + 4 m",
                 pixels.size(1), left);
  }
  follow(*encoder_, pixels);
  const at::Tensor raw = encoder_->encode(pixels.transpose(1, 2), options_.latents_per_pass);
  return LatentStatistics::wan().normalise(raw).transpose(1, 2).contiguous();
}

at::Tensor WanVae::decode_next(const at::Tensor& latents, FeatureHistory& history) {
  require(latents.dim() == 5 && latents.size(2) == config_.z_dim && latents.numel() > 0,
          "latents [{}] cannot be decoded: expected [B, T, {}, h, w]",
          fmt::join(latents.sizes(), ", "), config_.z_dim);
  follow(*decoder_, latents);
  const at::Tensor z = LatentStatistics::wan().denormalise(latents.transpose(1, 2));
  return decoder_->decode(z, history, options_.latents_per_pass).transpose(1, 2).contiguous();
}

}  // namespace minwm::models
