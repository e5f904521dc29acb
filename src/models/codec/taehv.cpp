#include "minwm/models/codec/taehv.h"

#include <algorithm>

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

constexpr int64_t kGroup = 4;  ///< video frames of a latent

/// A module that only owns children under a published prefix.
struct Named : torch::nn::Module {};

/// An operation on every frame by itself: [N, T, C, H, W] as a batch of N T frames.
template <class Operation>
at::Tensor per_frame(const at::Tensor& frames, const Operation& operation) {
  const at::Tensor out = operation(frames.flatten(0, 1));
  return out.unflatten(0, {frames.size(0), frames.size(1)});
}

struct ConvShape {
  int64_t in, out, kernel;
  bool bias;
  int64_t stride = 1, groups = 1;
};

class Conv final : public TaehvBlock {
 public:
  explicit Conv(const ConvShape& shape) : shape_(shape) {
    weight_ = register_parameter("weight", nn::make_parameter({shape.out, shape.in / shape.groups,
                                                               shape.kernel, shape.kernel}));
    if (shape.bias) {
      bias_ = register_parameter("bias", nn::make_parameter({shape.out}));
    }
  }
  /// [batch, C, H, W]
  at::Tensor apply(const at::Tensor& x) const {
    return at::conv2d(x, weight_, bias_, shape_.stride, shape_.kernel / 2, 1, shape_.groups);
  }
  at::Tensor forward(const at::Tensor& frames, HistoryPass& /*pass*/) const override {
    return per_frame(frames.to(weight_.scalar_type()), [&](const auto& x) { return apply(x); });
  }

 private:
  ConvShape shape_;
  at::Tensor weight_, bias_;
};

/// A step without parameters on a batch of frames.
class Step final : public TaehvBlock {
 public:
  using Operation = at::Tensor (*)(const at::Tensor&);
  explicit Step(Operation operation) : operation_(operation) {}
  at::Tensor forward(const at::Tensor& frames, HistoryPass& /*pass*/) const override {
    return per_frame(frames, operation_);
  }

 private:
  Operation operation_;
};

at::Tensor relu(const at::Tensor& x) {
  return at::relu(x);
}
at::Tensor soft_clamp(const at::Tensor& x) {
  return at::tanh(x / 3) * 3;
}
at::Tensor same(const at::Tensor& x) {
  return x;
}
at::Tensor twice(const at::Tensor& x) {
  return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
}
at::Tensor shuffle(const at::Tensor& x) {
  return at::pixel_shuffle(x, 2);
}

/// Every frame beside the one before it, along the channels; `past` is the last frame of the part
/// before, undefined at the start, and is replaced.
at::Tensor with_past(const at::Tensor& frames, at::Tensor& past) {
  const int64_t last = frames.size(1) - 1;
  const at::Tensor before = past.defined() ? past : at::zeros_like(frames.narrow(1, 0, 1));
  require(before.sizes() == frames.narrow(1, 0, 1).sizes(),
          "a part of a stream is [{}] here, the frame before it was [{}]: expected the same batch, "
          "height and width",
          fmt::join(frames.sizes(), ", "), fmt::join(before.sizes(), ", "));
  past = frames.narrow(1, last, 1).clone(at::MemoryFormat::Contiguous);
  return at::cat({frames, at::cat({before, frames.narrow(1, 0, last)}, 1)}, 2);
}

/// conv.{0,2,4} on a frame and the one before it.
class MemBlock final : public TaehvBlock {
 public:
  explicit MemBlock(int64_t n) {
    const auto conv = register_module("conv", std::make_shared<Named>());
    first_ = conv->register_module("0", std::make_shared<Conv>(ConvShape{2 * n, n, 3, true}));
    second_ = conv->register_module("2", std::make_shared<Conv>(ConvShape{n, n, 3, true}));
    third_ = conv->register_module("4", std::make_shared<Conv>(ConvShape{n, n, 3, true}));
  }
  at::Tensor forward(const at::Tensor& frames, HistoryPass& pass) const override {
    const at::Tensor change = per_frame(with_past(frames, pass.next()), [&](const auto& x) {
      return third_->apply(at::relu(second_->apply(at::relu(first_->apply(x)))));
    });
    return at::relu(change + frames);
  }

 private:
  std::shared_ptr<Conv> first_, second_, third_;
};

/// conv.{0,1,3}: a wide depthwise convolution and a bottleneck turned inside out.
class SuperMemBlock final : public TaehvBlock {
 public:
  explicit SuperMemBlock(int64_t n) {
    const auto conv = register_module("conv", std::make_shared<Named>());
    depthwise_ = conv->register_module(
        "0", std::make_shared<Conv>(ConvShape{2 * n, 2 * n, 7, false, 1, 2 * n}));
    wider_ = conv->register_module("1", std::make_shared<Conv>(ConvShape{2 * n, 4 * n, 1, true}));
    narrower_ = conv->register_module("3", std::make_shared<Conv>(ConvShape{4 * n, n, 1, false}));
  }
  at::Tensor forward(const at::Tensor& frames, HistoryPass& pass) const override {
    return frames + per_frame(with_past(frames, pass.next()), [&](const auto& x) {
             return narrower_->apply(at::relu(wider_->apply(depthwise_->apply(x))));
           });
  }

 private:
  std::shared_ptr<Conv> depthwise_, wider_, narrower_;
};

/// `stride` frames become one.
class TimePool final : public TaehvBlock {
 public:
  TimePool(int64_t n, int64_t stride) : stride_(stride) {
    conv_ = register_module("conv", std::make_shared<Conv>(ConvShape{stride * n, n, 1, false}));
  }
  at::Tensor forward(const at::Tensor& frames, HistoryPass& pass) const override {
    return conv_->forward(frames.unflatten(1, {frames.size(1) / stride_, stride_}).flatten(2, 3),
                          pass);
  }

 private:
  int64_t stride_;
  std::shared_ptr<Conv> conv_;
};

/// One frame becomes `stride`.
class TimeGrow final : public TaehvBlock {
 public:
  TimeGrow(int64_t n, int64_t stride) : stride_(stride) {
    conv_ = register_module("conv", std::make_shared<Conv>(ConvShape{n, stride * n, 1, false}));
  }
  at::Tensor forward(const at::Tensor& frames, HistoryPass& pass) const override {
    const at::Tensor wide = conv_->forward(frames, pass);
    return wide.unflatten(2, {stride_, wide.size(2) / stride_}).flatten(1, 2);
  }

 private:
  int64_t stride_;
  std::shared_ptr<Conv> conv_;
};

/// A sequence whose steps are children "0", "1", … of `list`.
class Sequence {
 public:
  Sequence(torch::nn::Module& list, std::vector<std::shared_ptr<TaehvBlock>>& blocks)
      : list_(list), blocks_(blocks) {}
  template <class Block, class... Args>
  void add(const Args&... args) {
    blocks_.push_back(
        list_.register_module(std::to_string(blocks_.size()), std::make_shared<Block>(args...)));
  }

 private:
  torch::nn::Module& list_;
  std::vector<std::shared_ptr<TaehvBlock>>& blocks_;
};

at::Tensor run(const std::vector<std::shared_ptr<TaehvBlock>>& blocks, at::Tensor x,
               FeatureHistory& history) {
  HistoryPass pass(history);
  for (const auto& block : blocks) {
    x = block->forward(x, pass);
  }
  pass.commit();
  return x.to(at::kFloat);
}

void add_base_decoder(Sequence& list, const TaehvConfig& config) {
  const auto& widths = config.decoder_widths;
  list.add<Step>(soft_clamp);
  list.add<Conv>(ConvShape{config.latent_channels, widths[0], 3, true});
  list.add<Step>(relu);
  for (size_t i = 0; i < 3; ++i) {
    for (int k = 0; k < 3; ++k) {
      list.add<MemBlock>(widths[i]);
    }
    list.add<Step>(config.space_upscale[i] ? twice : same);
    list.add<TimeGrow>(widths[i], config.time_upscale[i] ? int64_t{2} : int64_t{1});
    list.add<Conv>(ConvShape{widths[i], widths[i + 1], 3, false});
  }
  list.add<Step>(relu);
}

void add_super_decoder(Sequence& list, const TaehvConfig& config) {
  const auto& widths = config.decoder_widths;
  list.add<Conv>(ConvShape{config.latent_channels, widths[0], 1, false});
  for (size_t i = 0; i < 3; ++i) {
    for (int k = 0; k < 3; ++k) {
      list.add<SuperMemBlock>(widths[i]);
    }
    list.add<Conv>(ConvShape{widths[i], 4 * widths[i + 1], 3, true});
    list.add<Step>(relu);
    list.add<Step>(shuffle);
    list.add<TimeGrow>(widths[i + 1], config.time_upscale[i] ? int64_t{2} : int64_t{1});
  }
}

}  // namespace

int64_t TaehvConfig::frames_per_latent() const {
  return int64_t{1} << std::count(time_upscale.begin(), time_upscale.end(), true);
}

void TaehvConfig::check() const {
  require(patch_size >= 1 && latent_channels >= 1 && encoder_width >= 1,
          "TAEHV: patch_size {}, latent_channels {}, encoder_width {}: each must be at least 1",
          patch_size, latent_channels, encoder_width);
  require(decoder_widths.size() == 4 && std::all_of(decoder_widths.begin(), decoder_widths.end(),
                                                    [](int64_t width) { return width >= 1; }),
          "TAEHV: decoder_widths [{}]: expected 4 of at least 1", fmt::join(decoder_widths, ", "));
  require(time_upscale.size() == 3 && space_upscale.size() == 3,
          "TAEHV: {} values of time_upscale and {} of space_upscale, expected 3 each",
          time_upscale.size(), space_upscale.size());
  require(
      arch == TaehvArch::kBase || std::count(space_upscale.begin(), space_upscale.end(), true) == 3,
      "TAEHV: the super decoder has no smaller preview: expected space_upscale [1, 1, 1]");
}

TaehvEncoderImpl::TaehvEncoderImpl(const TaehvConfig& config) : config_(config) {
  config.check();
  const int64_t width = config.encoder_width;
  const auto encoder = register_module("encoder", std::make_shared<Named>());
  Sequence list(*encoder, blocks_);
  list.add<Conv>(ConvShape{3 * config.patch_size * config.patch_size, width, 3, true});
  list.add<Step>(relu);
  for (const int64_t stride : {2, 2, 1}) {
    list.add<TimePool>(width, stride);
    list.add<Conv>(ConvShape{width, width, 3, false, 2});
    for (int k = 0; k < 3; ++k) {
      list.add<MemBlock>(width);
    }
  }
  list.add<Conv>(ConvShape{width, config.latent_channels, 3, true});
}

void TaehvEncoderImpl::check_video(const at::Tensor& video) const {
  const int64_t p = config_.patch_size;
  require(video.dim() == 5 && video.size(2) == 3 && video.numel() > 0 && video.size(3) % p == 0 &&
              video.size(4) % p == 0,
          "video [{}] cannot be encoded: expected [N, T, 3, H, W] with H and W multiples of {}",
          fmt::join(video.sizes(), ", "), p);
}

at::Tensor TaehvEncoderImpl::encode_groups(const at::Tensor& video, FeatureHistory& history) const {
  const auto patches =
      per_frame(video, [&](const auto& x) { return at::pixel_unshuffle(x, config_.patch_size); });
  return run(blocks_, patches, history);
}

at::Tensor TaehvEncoderImpl::encode(const at::Tensor& video) const {
  check_video(video);
  TaehvEncodeState state;
  const at::Tensor whole = encode_next(video, state), rest = flush(state);
  return rest.defined() ? at::cat({whole, rest}, 1) : whole;
}

at::Tensor TaehvEncoderImpl::encode_next(const at::Tensor& video, TaehvEncodeState& state) const {
  check_video(video);
  require(!state.pending.defined() || (state.pending.size(0) == video.size(0) &&
                                       state.pending.sizes().slice(2) == video.sizes().slice(2)),
          "a part of a stream is [{}], its frames so far [{}]: expected the same batch, height and "
          "width",
          fmt::join(video.sizes(), ", "),
          state.pending.defined() ? fmt::format("{}", fmt::join(state.pending.sizes(), ", ")) : "");
  const at::Tensor frames = state.pending.defined() ? at::cat({state.pending, video}, 1) : video;
  const int64_t whole = frames.size(1) / kGroup * kGroup, left = frames.size(1) - whole;
  at::Tensor latents;
  if (whole > 0) {
    latents = encode_groups(frames.narrow(1, 0, whole), state.history);
  } else {
    // Each of three convolutions of stride 2 rounds up.
    const int64_t s = 8 * config_.patch_size;
    latents = at::zeros({video.size(0), 0, config_.latent_channels, (video.size(3) + s - 1) / s,
                         (video.size(4) + s - 1) / s},
                        video.options().dtype(at::kFloat));
  }
  state.pending = left > 0 ? frames.narrow(1, whole, left).clone() : at::Tensor();
  return latents;
}

at::Tensor TaehvEncoderImpl::flush(TaehvEncodeState& state) const {
  at::Tensor latent;
  if (state.pending.defined()) {
    const int64_t held = state.pending.size(1);
    const at::Tensor last = state.pending.narrow(1, held - 1, 1);
    const at::Tensor full =
        at::cat({state.pending, last.expand({-1, kGroup - held, -1, -1, -1})}, 1);
    latent = encode_groups(full, state.history);
  }
  state = {};
  return latent;
}

TaehvDecoderImpl::TaehvDecoderImpl(const TaehvConfig& config) : config_(config) {
  config.check();
  const auto decoder = register_module("decoder", std::make_shared<Named>());
  Sequence list(*decoder, blocks_);
  if (config.arch == TaehvArch::kBase) {
    add_base_decoder(list, config);
  } else {
    add_super_decoder(list, config);
  }
  list.add<Conv>(
      ConvShape{config.decoder_widths[3], 3 * config.patch_size * config.patch_size, 3, true});
}

at::Tensor TaehvDecoderImpl::raw(const at::Tensor& latents, FeatureHistory& history) const {
  require(latents.dim() == 5 && latents.size(2) == config_.latent_channels && latents.numel() > 0,
          "latents [{}] cannot be decoded: expected [N, T, {}, h, w]",
          fmt::join(latents.sizes(), ", "), config_.latent_channels);
  return run(blocks_, latents, history);
}

at::Tensor TaehvDecoderImpl::decode(const at::Tensor& latents, FeatureHistory& history) const {
  const int64_t trim = history.started ? 0 : config_.frames_to_trim();
  const at::Tensor made = raw(latents, history);
  return per_frame(made.narrow(1, trim, made.size(1) - trim), [&](const auto& x) {
    return at::pixel_shuffle(x, config_.patch_size).clamp(0, 1);
  });
}

}  // namespace minwm::models
