#include "minwm/models/codec/hy_vae.h"

#include <algorithm>
#include <bit>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

constexpr int64_t kGroup = 4;  ///< video frames of a latent frame after the first

/// A module that only owns children under a published prefix.
struct Named : torch::nn::Module {};

int64_t log2_of(int64_t factor) {
  return std::bit_width(static_cast<uint64_t>(factor)) - 1;
}

/// "block": a level's residual blocks, the first of which changes the width.
std::vector<HyVaeResBlock> add_blocks(torch::nn::Module& level, int64_t count, int64_t in,
                                      int64_t out) {
  const auto list = level.register_module("block", std::make_shared<Named>());
  std::vector<HyVaeResBlock> blocks;
  for (int64_t i = 0; i < count; ++i) {
    blocks.push_back(
        list->register_module(std::to_string(i), HyVaeResBlock(i == 0 ? in : out, out)));
  }
  return blocks;
}

}  // namespace

void HyVaeConfig::check() const {
  require(in_channels >= 1 && out_channels >= 1 && latent_channels >= 1 && layers_per_block >= 1,
          "HunyuanVideo VAE: in_channels {}, out_channels {}, latent_channels {}, "
          "layers_per_block {}: each must be at least 1",
          in_channels, out_channels, latent_channels, layers_per_block);
  require(ffactor_spatial >= 1 && std::has_single_bit(static_cast<uint64_t>(ffactor_spatial)) &&
              (ffactor_temporal == 1 || ffactor_temporal == 2 || ffactor_temporal == kGroup) &&
              ffactor_temporal <= ffactor_spatial,
          "HunyuanVideo VAE: ffactor_spatial {}, ffactor_temporal {}: expected powers of 2, the "
          "temporal one at most {} and at most the spatial one",
          ffactor_spatial, ffactor_temporal, kGroup);
  const auto& widths = block_out_channels;
  require(static_cast<int64_t>(widths.size()) >= std::max<int64_t>(1, log2_of(ffactor_spatial)) &&
              std::all_of(widths.begin(), widths.end(), [](int64_t w) { return w >= 1; }),
          "HunyuanVideo VAE: block_out_channels [{}]: expected at least {} positive widths",
          fmt::join(widths, ", "), std::max<int64_t>(1, log2_of(ffactor_spatial)));
  require(widths.back() % (2 * latent_channels) == 0,
          "HunyuanVideo VAE: a last width of {}, expected a multiple of {}, twice the latent "
          "channels",
          widths.back(), 2 * latent_channels);
  require(scaling_factor != 0, "HunyuanVideo VAE: scaling_factor 0");
}

HyVaeEncoderImpl::HyVaeEncoderImpl(const HyVaeConfig& config) : config_(config) {
  config.check();
  const auto encoder = register_module("encoder", std::make_shared<Named>());
  const auto& widths = config.block_out_channels;
  int64_t width = widths.front();
  conv_in_ = encoder->register_module("conv_in", HyVaeConv(config.in_channels, width));
  const auto down = encoder->register_module("down", std::make_shared<Named>());
  const int64_t spatial = log2_of(config.ffactor_spatial);
  const int64_t still = log2_of(config.ffactor_spatial / config.ffactor_temporal);
  for (size_t i = 0; i < widths.size(); ++i) {
    const auto part = down->register_module(std::to_string(i), std::make_shared<Named>());
    Level level{.blocks = add_blocks(*part, config.layers_per_block, width, widths[i])};
    width = widths[i];
    const auto index = static_cast<int64_t>(i);
    if (index < spatial) {
      const bool next = config.downsample_match_channel && i + 1 < widths.size();
      const int64_t out = next ? widths[i + 1] : width;
      level.downsample =
          part->register_module("downsample", HyVaeDownsample(width, out, index >= still));
      width = out;
    }
    levels_.push_back(std::move(level));
  }
  const auto middle = encoder->register_module("mid", std::make_shared<Named>());
  middle_in_ = middle->register_module("block_1", HyVaeResBlock(width, width));
  attention_ = middle->register_module("attn_1", HyVaeAttention(width));
  middle_out_ = middle->register_module("block_2", HyVaeResBlock(width, width));
  norm_out_ = encoder->register_module("norm_out", HyVaeNorm(width));
  conv_out_ = encoder->register_module("conv_out", HyVaeConv(width, 2 * config.latent_channels));
}

at::Tensor HyVaeEncoderImpl::encode_part(const at::Tensor& video, FeatureHistory& history,
                                         HyVaeAttentionScope scope) const {
  HistoryPass pass(history);
  at::Tensor x = conv_in_->forward(video, pass);
  for (const Level& level : levels_) {
    for (const auto& block : level.blocks) {
      x = block->forward(x, pass);
    }
    x = level.downsample.is_empty() ? x : level.downsample->forward(x, pass);
  }
  x = attention_->forward(middle_in_->forward(x, pass), scope);
  x = middle_out_->forward(x, pass);
  const at::Tensor shortcut = mean_of_channels(x, 2 * config_.latent_channels);
  x = conv_out_->forward(norm_out_->activated(x), pass) + shortcut;
  pass.commit();
  return x.to(at::kFloat);
}

void HyVaeEncoderImpl::check_video(const at::Tensor& video) const {
  const int64_t s = config_.ffactor_spatial;
  require(video.dim() == 5 && video.size(1) == config_.in_channels && video.numel() > 0 &&
              video.size(3) % s == 0 && video.size(4) % s == 0,
          "video [{}] cannot be encoded: expected [B, {}, F, H, W] with H and W multiples of {}",
          fmt::join(video.sizes(), ", "), config_.in_channels, s);
}

HyVaePosterior HyVaeEncoderImpl::encode(const at::Tensor& video, int64_t latents_per_pass) const {
  check_video(video);
  const auto scope = HyVaeAttentionScope::kFrame;
  FeatureHistory history;
  std::vector<at::Tensor> parts = {encode_part(video.narrow(2, 0, 1), history, scope)};
  const int64_t group = config_.ffactor_temporal;
  const int64_t frames = 1 + (video.size(2) - 1) / group * group;
  for (int64_t begin = 1; begin < frames;) {
    const int64_t count = std::min(group * latents_per_pass, frames - begin);
    parts.push_back(encode_part(video.narrow(2, begin, count), history, scope));
    begin += count;
  }
  return {at::cat(parts, 2)};
}

HyVaePosterior HyVaeEncoderImpl::encode_oneshot(const at::Tensor& video) const {
  check_video(video);
  require((video.size(2) - 1) % config_.ffactor_temporal == 0,
          "a clip of {} frames cannot be encoded in one shot: expected 1 + {} m", video.size(2),
          config_.ffactor_temporal);
  FeatureHistory history;
  return {encode_part(video, history, HyVaeAttentionScope::kCausal)};
}

HyVaeDecoderImpl::HyVaeDecoderImpl(const HyVaeConfig& config) : config_(config) {
  config.check();
  const auto decoder = register_module("decoder", std::make_shared<Named>());
  const std::vector<int64_t> widths(config.block_out_channels.rbegin(),
                                    config.block_out_channels.rend());
  int64_t width = widths.front();
  conv_in_ = decoder->register_module("conv_in", HyVaeConv(config.latent_channels, width));
  const auto middle = decoder->register_module("mid", std::make_shared<Named>());
  middle_in_ = middle->register_module("block_1", HyVaeResBlock(width, width));
  attention_ = middle->register_module("attn_1", HyVaeAttention(width));
  middle_out_ = middle->register_module("block_2", HyVaeResBlock(width, width));
  const auto up = decoder->register_module("up", std::make_shared<Named>());
  const int64_t spatial = log2_of(config.ffactor_spatial);
  const int64_t temporal = log2_of(config.ffactor_temporal);
  for (size_t i = 0; i < widths.size(); ++i) {
    const auto part = up->register_module(std::to_string(i), std::make_shared<Named>());
    Level level{.blocks = add_blocks(*part, config.layers_per_block + 1, width, widths[i])};
    width = widths[i];
    const auto index = static_cast<int64_t>(i);
    if (index < spatial) {
      const bool next = config.upsample_match_channel && i + 1 < widths.size();
      const int64_t out = next ? widths[i + 1] : width;
      level.upsample =
          part->register_module("upsample", HyVaeUpsample(width, out, index < temporal));
      width = out;
    }
    levels_.push_back(std::move(level));
  }
  norm_out_ = decoder->register_module("norm_out", HyVaeNorm(width));
  conv_out_ = decoder->register_module("conv_out", HyVaeConv(width, config.out_channels));
}

at::Tensor HyVaeDecoderImpl::decode_part(const at::Tensor& z, FeatureHistory& history,
                                         HyVaeAttentionScope scope) const {
  HistoryPass pass(history);
  at::Tensor x = conv_in_->forward(z, pass);
  x = x + repeat_channels(z, x.size(1)).to(x.scalar_type());
  x = attention_->forward(middle_in_->forward(x, pass), scope);
  x = middle_out_->forward(x, pass);
  for (const Level& level : levels_) {
    for (const auto& block : level.blocks) {
      x = block->forward(x, pass);
    }
    x = level.upsample.is_empty() ? x : level.upsample->forward(x, pass);
  }
  x = conv_out_->forward(norm_out_->activated(x), pass);
  pass.commit();
  return x.to(at::kFloat);
}

void HyVaeDecoderImpl::check_latents(const at::Tensor& z) const {
  require(z.dim() == 5 && z.size(1) == config_.latent_channels && z.numel() > 0,
          "latents [{}] cannot be decoded: expected [B, {}, T, h, w]", fmt::join(z.sizes(), ", "),
          config_.latent_channels);
}

at::Tensor HyVaeDecoderImpl::decode(const at::Tensor& z, FeatureHistory& history,
                                    int64_t latents_per_pass) const {
  check_latents(z);
  FeatureHistory next = history;
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < z.size(2);) {
    const int64_t count = next.started ? std::min(latents_per_pass, z.size(2) - begin) : 1;
    parts.push_back(decode_part(z.narrow(2, begin, count), next, HyVaeAttentionScope::kFrame));
    begin += count;
  }
  history = std::move(next);
  return parts.size() == 1 ? parts.front() : at::cat(parts, 2);
}

at::Tensor HyVaeDecoderImpl::decode_oneshot(const at::Tensor& z) const {
  check_latents(z);
  FeatureHistory history;
  return decode_part(z, history, HyVaeAttentionScope::kCausal);
}

}  // namespace minwm::models
