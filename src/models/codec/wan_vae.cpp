#include "minwm/models/codec/wan_vae.h"

#include <algorithm>

#include "minwm/core/error.h"

namespace minwm::models {
namespace {

constexpr auto kZeros = VideoPadding::kZeros;
constexpr int64_t kGroup = 4;  ///< video frames of a latent frame after the first

/// A module that only owns children under a published prefix.
struct Named : torch::nn::Module {};

const std::vector<int64_t> kCube = {3, 3, 3}, kPoint = {1, 1, 1};

/// A list of blocks that are children "0", "1", … of `list`.
class BlockList {
 public:
  BlockList(torch::nn::Module& list, std::vector<std::shared_ptr<WanVaeBlock>>& blocks)
      : list_(list), blocks_(blocks) {}
  template <class Block, class... Args>
  void add(Args... args) {
    blocks_.push_back(
        list_.register_module(std::to_string(count_++), std::make_shared<Block>(args...)));
  }

 private:
  torch::nn::Module& list_;
  std::vector<std::shared_ptr<WanVaeBlock>>& blocks_;
  int64_t count_ = 0;
};

void add_middle(torch::nn::Module& part, std::vector<std::shared_ptr<WanVaeBlock>>& blocks,
                int64_t width) {
  const auto middle = part.register_module("middle", std::make_shared<Named>());
  BlockList list(*middle, blocks);
  list.add<WanVaeResBlock>(width, width);
  list.add<WanVaeAttention>(width);
  list.add<WanVaeResBlock>(width, width);
}

at::Tensor run(const std::vector<std::shared_ptr<WanVaeBlock>>& blocks, at::Tensor x,
               HistoryPass& pass) {
  for (const auto& block : blocks) {
    x = block->forward(x, pass);
  }
  return x;
}

}  // namespace

int64_t WanVaeConfig::spatial_factor() const {
  return int64_t{1} << temporal_downsample.size();
}

int64_t WanVaeConfig::temporal_factor() const {
  return int64_t{1} << std::count(temporal_downsample.begin(), temporal_downsample.end(), true);
}

void WanVaeConfig::check() const {
  require(dim >= 1 && z_dim >= 1 && num_res_blocks >= 1,
          "Wan VAE: dim {}, z_dim {}, num_res_blocks {}: each must be at least 1", dim, z_dim,
          num_res_blocks);
  require(!dim_mult.empty() && dim_mult.size() <= 8 &&
              std::all_of(dim_mult.begin(), dim_mult.end(), [](int64_t m) { return m >= 1; }),
          "Wan VAE: dim_mult [{}]: expected 1 to 8 factors of at least 1",
          fmt::join(dim_mult, ", "));
  require(temporal_downsample.size() + 1 == dim_mult.size(),
          "Wan VAE: {} values of temporal_downsample for {} levels, expected one less",
          temporal_downsample.size(), dim_mult.size());
  require(temporal_factor() <= kGroup, "Wan VAE: a temporal stride of {}, expected at most {}",
          temporal_factor(), kGroup);
}

LatentStatistics LatentStatistics::wan() {
  return {at::tensor({-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134,
                      -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921},
                     at::kFloat),
          at::tensor({2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687,
                      2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160},
                     at::kFloat)};
}

// The reciprocal comes first, as in the reference.

at::Tensor LatentStatistics::normalise(const at::Tensor& raw) const {
  const at::Tensor offset = mean.to(raw.device()).view({1, -1, 1, 1, 1});
  return (raw.to(at::kFloat) - offset) * std.to(raw.device()).reciprocal().view({1, -1, 1, 1, 1});
}

at::Tensor LatentStatistics::denormalise(const at::Tensor& latents) const {
  const at::Tensor inverse = std.to(latents.device()).reciprocal().view({1, -1, 1, 1, 1});
  return latents.to(at::kFloat) / inverse + mean.to(latents.device()).view({1, -1, 1, 1, 1});
}

WanVaeEncoderImpl::WanVaeEncoderImpl(const WanVaeConfig& config) : z_dim_(config.z_dim) {
  config.check();
  const auto encoder = register_module("encoder", std::make_shared<Named>());
  conv_in_ = encoder->register_module("conv1", ConvWeights(3, config.dim, kCube));
  const auto downsamples = encoder->register_module("downsamples", std::make_shared<Named>());
  BlockList list(*downsamples, blocks_);
  int64_t width = config.dim;
  for (size_t level = 0; level < config.dim_mult.size(); ++level) {
    for (int64_t i = 0; i < config.num_res_blocks; ++i) {
      const int64_t before = width;
      width = config.dim * config.dim_mult[level];
      list.add<WanVaeResBlock>(before, width);
    }
    if (level < config.temporal_downsample.size()) {
      list.add<WanVaeResample>(width, WanVaeSampling::kDown,
                               static_cast<bool>(config.temporal_downsample[level]));
    }
  }
  add_middle(*encoder, blocks_, width);
  const auto head = encoder->register_module("head", std::make_shared<Named>());
  norm_out_ = head->register_module("0", WanVaeNorm(width));
  conv_out_ = head->register_module("2", ConvWeights(width, 2 * z_dim_, kCube));
  moments_ = register_module("conv1", ConvWeights(2 * z_dim_, 2 * z_dim_, kPoint));
}

at::Tensor WanVaeEncoderImpl::encode_part(const at::Tensor& video, FeatureHistory& history) const {
  HistoryPass pass(history);
  at::Tensor x = causal_conv(video, conv_in_, kZeros, pass.next());
  x = run(blocks_, x, pass);
  x = causal_conv(norm_out_->activated(x), conv_out_, kZeros, pass.next());
  pass.commit();
  // The second half would be the posterior's log-variance, which nobody uses.
  return pointwise_conv(x, moments_).narrow(1, 0, z_dim_).to(at::kFloat);
}

at::Tensor WanVaeEncoderImpl::encode(const at::Tensor& video, int64_t latents_per_pass) const {
  require(video.dim() == 5 && video.size(1) == 3 && video.numel() > 0,
          "video [{}] cannot be encoded: expected [B, 3, F, H, W]", fmt::join(video.sizes(), ", "));
  FeatureHistory history;
  std::vector<at::Tensor> parts = {encode_part(video.narrow(2, 0, 1), history)};
  const int64_t frames = 1 + (video.size(2) - 1) / kGroup * kGroup;
  for (int64_t begin = 1; begin < frames;) {
    const int64_t count = std::min(kGroup * latents_per_pass, frames - begin);
    parts.push_back(encode_part(video.narrow(2, begin, count), history));
    begin += count;
  }
  return at::cat(parts, 2);
}

WanVaeDecoderImpl::WanVaeDecoderImpl(const WanVaeConfig& config) : z_dim_(config.z_dim) {
  config.check();
  const auto& mult = config.dim_mult;
  const int64_t levels = static_cast<int64_t>(mult.size());
  latents_ = register_module("conv2", ConvWeights(z_dim_, z_dim_, kPoint));
  const auto decoder = register_module("decoder", std::make_shared<Named>());
  int64_t width = config.dim * mult.back();
  conv_in_ = decoder->register_module("conv1", ConvWeights(z_dim_, width, kCube));
  add_middle(*decoder, blocks_, width);
  const auto upsamples = decoder->register_module("upsamples", std::make_shared<Named>());
  BlockList list(*upsamples, blocks_);
  for (int64_t level = levels - 1; level >= 0; --level) {
    for (int64_t i = 0; i <= config.num_res_blocks; ++i) {
      const int64_t before = width;
      width = config.dim * mult[static_cast<size_t>(level)];
      list.add<WanVaeResBlock>(before, width);
    }
    if (level > 0) {
      list.add<WanVaeResample>(
          width, WanVaeSampling::kUp,
          static_cast<bool>(config.temporal_downsample[static_cast<size_t>(level - 1)]));
      width /= 2;
    }
  }
  const auto head = decoder->register_module("head", std::make_shared<Named>());
  norm_out_ = head->register_module("0", WanVaeNorm(width));
  conv_out_ = head->register_module("2", ConvWeights(width, 3, kCube));
}

at::Tensor WanVaeDecoderImpl::decode_part(const at::Tensor& z, FeatureHistory& history) const {
  HistoryPass pass(history);
  at::Tensor x = causal_conv(pointwise_conv(z, latents_), conv_in_, kZeros, pass.next());
  x = run(blocks_, x, pass);
  x = causal_conv(norm_out_->activated(x), conv_out_, kZeros, pass.next());
  pass.commit();
  return x.to(at::kFloat);
}

at::Tensor WanVaeDecoderImpl::decode(const at::Tensor& z, FeatureHistory& history,
                                     int64_t latents_per_pass) const {
  require(z.dim() == 5 && z.size(1) == z_dim_ && z.numel() > 0,
          "latents [{}] cannot be decoded: expected [B, {}, T, h, w]", fmt::join(z.sizes(), ", "),
          z_dim_);
  FeatureHistory next = history;
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < z.size(2);) {
    const int64_t count = next.started ? std::min(latents_per_pass, z.size(2) - begin) : 1;
    parts.push_back(decode_part(z.narrow(2, begin, count), next));
    begin += count;
  }
  history = std::move(next);
  return parts.size() == 1 ? parts.front() : at::cat(parts, 2);
}

}  // namespace minwm::models
