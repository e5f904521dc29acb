// Fitting the analytic codec: two principal component analyses, and a decoder by ridge regression.

#include <utility>

#include <ATen/ATen.h>

#include "blocks.h"
#include "minwm/core/error.h"
#include "minwm/models/codec/analytic.h"

namespace minwm::models {
namespace {

constexpr double kSmallestVariance = 1e-9;  ///< of a channel, against the total

/// Sums over blocks of uint8 values. Every sum is a whole number below 2^53, so the doubles are
/// exact whatever the order of addition.
struct Moments {
  explicit Moments(int64_t size)
      : first(at::zeros({size}, at::kDouble)), second(at::zeros({size, size}, at::kDouble)) {}

  void add(const at::Tensor& blocks) {
    const at::Tensor values = blocks.to(at::kDouble);
    first.add_(values.sum(0));
    second.addmm_(values.t(), values);
    count += values.size(0);
  }

  at::Tensor first, second;
  int64_t count = 0;
};

/// The leading principal components, strongest first, the largest element of each positive; `scale`
/// is their standard deviation.
AnalyticBasis principal_components(const Moments& moments, int64_t channels, const char* what) {
  const OneThread guard;
  const auto n = static_cast<double>(moments.count);
  const at::Tensor mean = moments.first / n;
  const at::Tensor covariance =
      (moments.second / n - at::outer(mean, mean)) / (kHalfRange * kHalfRange);
  const auto [ascending, vectors] = at::linalg_eigh(covariance);
  const at::Tensor variances = ascending.flip(0).narrow(0, 0, channels);
  const double total = ascending.sum().item<double>();
  const double smallest = variances[-1].item<double>();
  require(total > 0 && smallest > kSmallestVariance * total,
          "cannot fit {} channels to {} {} blocks: they vary in fewer directions", channels,
          moments.count, what);
  at::Tensor basis = vectors.t().flip(0).narrow(0, 0, channels);
  const at::Tensor largest = basis.gather(1, basis.abs().argmax(1, true));
  basis = basis * largest.sign();
  return {basis.to(at::kFloat).contiguous(), (mean / kHalfRange - 1).to(at::kFloat),
          variances.sqrt().to(at::kFloat)};
}

/// Reorders and flips the group's channels so that channel c looks like channel c of frame 0: the
/// best pair by |dot product| with the mean over the four frames first.
void match_channels(const AnalyticBasis& frame, AnalyticBasis& group) {
  const int64_t channels = frame.basis.size(0);
  const at::Tensor still = group.basis.view({channels, kGroup, -1}).mean(1);
  const at::Tensor products = at::matmul(frame.basis, still.t()).contiguous();  // [frame, group]
  at::Tensor left = products.abs();
  std::vector<int64_t> order(static_cast<size_t>(channels));
  std::vector<float> signs(static_cast<size_t>(channels));
  for (int64_t pair = 0; pair < channels; ++pair) {
    const int64_t best = left.argmax().item<int64_t>();
    const int64_t c = best / channels, g = best % channels;
    order[static_cast<size_t>(c)] = g;
    signs[static_cast<size_t>(c)] = products[c][g].item<float>() < 0 ? -1.F : 1.F;
    left[c].fill_(-1);
    left.select(1, g).fill_(-1);
  }
  const at::Tensor index = at::tensor(order, at::kLong);
  group.basis = group.basis.index_select(0, index) * at::tensor(signs).unsqueeze(1);
  group.scale = group.scale.index_select(0, index);
}

/// From standard deviations to divisors: std^whitening, times one factor after which the mean
/// square over the channels is 1.
void whiten(AnalyticBasis& basis, double whitening) {
  const at::Tensor deviation = basis.scale.to(at::kDouble);
  const at::Tensor divisor = deviation.pow(whitening);
  const at::Tensor factor = (deviation / divisor).square().mean().sqrt();
  basis.scale = (divisor * factor).to(at::kFloat);
}

void require_clip(const at::Tensor& clip, size_t index, int64_t p) {
  require(clip.dim() == 4 && clip.size(3) == 3 && clip.scalar_type() == at::kByte &&
              clip.size(0) > 1 && clip.size(0) % kGroup == 1 && clip.size(1) % p == 0 &&
              clip.size(2) % p == 0 && clip.numel() > 0,
          "codec clip {}: {} [{}], expected Byte [1 + 4 m, H, W, 3] with H and W multiples of {}",
          index, c10::toString(clip.scalar_type()), fmt::join(clip.sizes(), ", "), p);
}

}  // namespace

AnalyticCodec AnalyticCodec::fit(const std::vector<at::Tensor>& clips,
                                 const AnalyticCodecOptions& options) {
  options.check();
  const int64_t p = options.patch, size = 3 * p * p;
  require(!clips.empty(), "cannot fit a codec to no clips");
  Moments frame(size), group(kGroup * size);
  for (size_t i = 0; i < clips.size(); ++i) {
    const at::Tensor& clip = clips[i];
    require_clip(clip, i, p);
    const at::Tensor pixels = clip.permute({0, 3, 1, 2}).contiguous();
    frame.add(to_blocks(pixels.narrow(0, 0, 1).unsqueeze(0), p));
    const at::Tensor rest = pixels.narrow(0, 1, pixels.size(0) - 1);
    group.add(to_blocks(rest.view({-1, kGroup, 3, pixels.size(2), pixels.size(3)}), p));
  }
  AnalyticBasis frame_basis = principal_components(frame, options.channels, "frame");
  AnalyticBasis group_basis = principal_components(group, options.channels, "group");
  match_channels(frame_basis, group_basis);
  whiten(frame_basis, options.whitening);
  whiten(group_basis, options.whitening);
  return {options, std::move(frame_basis), std::move(group_basis)};
}

void AnalyticCodec::fit_decoder(const std::vector<at::Tensor>& clips,
                                const NeighbourhoodOptions& options) {
  options.check();
  require(!clips.empty(), "cannot fit a codec to no clips");
  const OneThread guard;
  const int64_t p = options_.patch, channels = options_.channels, size = 3 * p * p;
  NeighbourhoodFit frame(channels, size, options.reach);
  NeighbourhoodFit group(channels, kGroup * size, options.reach);
  for (size_t i = 0; i < clips.size(); ++i) {
    require_clip(clips[i], i, p);
    const at::Tensor pixels =
        (clips[i].permute({0, 3, 1, 2}).contiguous().to(at::kFloat) / kHalfRange - 1).unsqueeze(0);
    // Any frame could be a first one: those that end a group teach as well.
    const at::Tensor stills = pixels[0].slice(0, 0, std::nullopt, kGroup).unsqueeze(1);
    frame.add(encode(stills).select(1, 0), to_blocks(stills, p));
    const int64_t groups = pixels.size(1) / kGroup;
    const at::Tensor rest = pixels.narrow(1, 1, kGroup * groups);
    group.add(encode(pixels)[0].narrow(0, 1, groups),
              to_blocks(rest.view({groups, kGroup, 3, rest.size(3), rest.size(4)}), p));
  }
  const auto own = [](const AnalyticBasis& basis) {
    return basis.basis * basis.scale.unsqueeze(1);
  };
  neighbourhood_ = {options, frame.solve(own(frame_), options.noise, options.ridge),
                    group.solve(own(group_), options.noise, options.ridge)};
}

}  // namespace minwm::models
