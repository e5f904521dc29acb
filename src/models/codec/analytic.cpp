#include "minwm/models/codec/analytic.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/core/safetensors.h"

namespace minwm::models {
namespace {

constexpr const char* kFormat = "minwm-analytic-codec";
constexpr const char* kVersion = "1";
constexpr int64_t kGroup = 4;               ///< video frames of a latent frame after the first
constexpr double kSmallestVariance = 1e-9;  ///< of a channel, against the total
constexpr double kHalfRange = 127.5;        ///< uint8 u stands for u / 127.5 - 1
constexpr int64_t kLargestPatch = 64;

/// [B, n, 3, H, W] → [B h w, n 3 p p].
at::Tensor to_blocks(const at::Tensor& pixels, int64_t p) {
  const int64_t b = pixels.size(0), n = pixels.size(1);
  const int64_t h = pixels.size(3) / p, w = pixels.size(4) / p;
  return pixels.reshape({b, n, 3, h, p, w, p})
      .permute({0, 3, 5, 1, 2, 4, 6})
      .reshape({b * h * w, n * 3 * p * p});
}

/// The inverse of to_blocks.
at::Tensor from_blocks(const at::Tensor& blocks, int64_t b, int64_t h, int64_t w, int64_t p) {
  return blocks.view({b, h, w, -1, 3, p, p})
      .permute({0, 3, 4, 1, 5, 2, 6})
      .reshape({b, -1, 3, h * p, w * p});
}

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

/// LAPACK's last bits depend on the number of threads.
class OneThread {
 public:
  OneThread() : threads_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
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

void require_options(const AnalyticCodecOptions& options) {
  require(options.patch >= 2 && options.patch <= kLargestPatch,
          "codec patch {}: expected 2 to {} pixels", options.patch, kLargestPatch);
  require(options.channels >= 1 && options.channels <= 3 * options.patch * options.patch,
          "codec channels {}: a patch of {} x {} pixels has {} numbers", options.channels,
          options.patch, options.patch, 3 * options.patch * options.patch);
  require(options.whitening >= 0 && options.whitening <= 1,
          "codec whitening {}: expected 0 (none) to 1 (full)", options.whitening);
}

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

NamedTensors named_tensors(const AnalyticBasis& frame, const AnalyticBasis& group) {
  return {{"frame.basis", frame.basis}, {"frame.mean", frame.mean}, {"frame.scale", frame.scale},
          {"group.basis", group.basis}, {"group.mean", group.mean}, {"group.scale", group.scale}};
}

/// "analytic-8x8x16-<hash>".
std::string codec_name(const AnalyticCodecOptions& options, const NamedTensors& tensors) {
  uint64_t hash = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::string_view bytes(static_cast<const char*>(tensor.const_data_ptr()),
                                 tensor.nbytes());
    hash = stream_key({.seed = hash, .purpose = bytes});
  }
  return fmt::format("analytic-{0}x{0}x{1}-{2:016x}", options.patch, options.channels, hash);
}

/// Reads one entry of a codec file's metadata.
class Metadata {
 public:
  Metadata(const Safetensors& file, std::string where) : file_(file), where_(std::move(where)) {}
  std::string text(const std::string& key) const {
    const auto entry = file_.metadata().find(key);
    require(entry != file_.metadata().end(), "{}: metadata '{}' is missing", where_, key);
    return entry->second;
  }
  double number(const std::string& key) const {
    const std::string value = text(key);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    require(!value.empty() && *end == '\0', "{}: metadata {} = '{}' is not a number", where_, key,
            value);
    return number;
  }

 private:
  const Safetensors& file_;
  std::string where_;
};

at::Tensor load_tensor(const Safetensors& file, const std::string& where, const std::string& name,
                       const std::vector<int64_t>& shape) {
  require(file.contains(name), "{}: tensor {} is missing", where, name);
  require(file.shape(name) == shape && file.dtype(name) == at::kFloat,
          "{}: tensor {} is {} [{}], expected Float [{}]", where, name,
          c10::toString(file.dtype(name)), fmt::join(file.shape(name), ", "),
          fmt::join(shape, ", "));
  at::Tensor tensor = file.get(name);
  require(tensor.isfinite().all().item<bool>(), "{}: tensor {} is not finite", where, name);
  return tensor;
}

AnalyticBasis load_basis(const Safetensors& file, const std::string& where, const std::string& part,
                         int64_t channels, int64_t size) {
  AnalyticBasis basis{load_tensor(file, where, part + ".basis", {channels, size}),
                      load_tensor(file, where, part + ".mean", {size}),
                      load_tensor(file, where, part + ".scale", {channels})};
  require(basis.scale.gt(0).all().item<bool>(), "{}: tensor {}.scale is not positive", where, part);
  return basis;
}

/// Whether the first chunk has been decoded.
struct AnalyticDecodeState : DecodeState {
  bool first = true;
};

}  // namespace

at::Tensor AnalyticBasis::encode(const at::Tensor& blocks) const {
  const at::Tensor weight = (basis / scale.unsqueeze(1)).to(blocks.device());
  const at::Tensor bias = at::mv(weight, mean.to(blocks.device())).neg();
  return at::addmm(bias, blocks, weight.t());
}

at::Tensor AnalyticBasis::decode(const at::Tensor& latents) const {
  const at::Tensor weight = (basis * scale.unsqueeze(1)).to(latents.device());
  return at::addmm(mean.to(latents.device()), latents, weight);
}

AnalyticCodec::AnalyticCodec(const AnalyticCodecOptions& options, AnalyticBasis frame,
                             AnalyticBasis group)
    : options_(options),
      frame_(std::move(frame)),
      group_(std::move(group)),
      name_(codec_name(options_, named_tensors(frame_, group_))) {}

AnalyticCodec AnalyticCodec::fit(const std::vector<at::Tensor>& clips,
                                 const AnalyticCodecOptions& options) {
  require_options(options);
  const int64_t p = options.patch, size = 3 * p * p;
  require(!clips.empty(), "cannot fit a codec to no clips");
  Moments frame(size), group(kGroup * size);
  for (size_t i = 0; i < clips.size(); ++i) {
    const at::Tensor& clip = clips[i];
    require(clip.dim() == 4 && clip.size(3) == 3 && clip.scalar_type() == at::kByte &&
                clip.size(0) > 1 && clip.size(0) % kGroup == 1 && clip.size(1) % p == 0 &&
                clip.size(2) % p == 0 && clip.numel() > 0,
            "codec clip {}: {} [{}], expected Byte [1 + 4 m, H, W, 3] with H and W multiples of {}",
            i, c10::toString(clip.scalar_type()), fmt::join(clip.sizes(), ", "), p);
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

AnalyticCodec AnalyticCodec::load(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Safetensors file(path);
  const Metadata metadata(file, where);
  require(file.metadata().contains("format") && metadata.text("format") == kFormat,
          "{}: not an analytic codec (metadata format = '{}' expected)", where, kFormat);
  require(metadata.text("version") == kVersion, "{}: codec version {}, this program reads {}",
          where, metadata.text("version"), kVersion);
  const auto whole = [&](const char* key) {
    const double value = metadata.number(key);
    require(value == std::floor(value) && std::abs(value) < 1e6, "{}: metadata {} = {}", where, key,
            value);
    return static_cast<int64_t>(value);
  };
  const AnalyticCodecOptions options{whole("patch"), whole("channels"),
                                     metadata.number("whitening")};
  try {
    require_options(options);
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
  const int64_t size = 3 * options.patch * options.patch;
  AnalyticCodec codec(options, load_basis(file, where, "frame", options.channels, size),
                      load_basis(file, where, "group", options.channels, kGroup * size));
  require(codec.name_ == metadata.text("name"), "{}: damaged: the content is that of {}, not of {}",
          where, codec.name_, metadata.text("name"));
  return codec;
}

void AnalyticCodec::save(const std::filesystem::path& path) const {
  write_safetensors(path, named_tensors(frame_, group_),
                    {{"format", kFormat},
                     {"version", kVersion},
                     {"name", name_},
                     {"patch", std::to_string(options_.patch)},
                     {"channels", std::to_string(options_.channels)},
                     {"whitening", fmt::format("{}", options_.whitening)}});
}

// One matrix product per latent frame, always of the same shape: a frame's bits cannot depend on
// how many others come with it.

at::Tensor AnalyticCodec::encode(const at::Tensor& pixels) {
  const int64_t p = options_.patch;
  require(pixels.dim() == 5 && pixels.size(2) == 3 && pixels.size(1) % kGroup == 1 &&
              pixels.size(3) % p == 0 && pixels.size(4) % p == 0 && pixels.numel() > 0,
          "pixels [{}] cannot be encoded: expected [B, 1 + 4 m, 3, H, W] with H and W multiples of "
          "{}",
          fmt::join(pixels.sizes(), ", "), p);
  const int64_t b = pixels.size(0), h = pixels.size(3) / p, w = pixels.size(4) / p;
  const int64_t frames = latent_frames(pixels.size(1));
  const at::Tensor values = pixels.to(at::kFloat);
  at::Tensor latents = at::empty({b, frames, options_.channels, h, w}, values.options());
  for (int64_t k = 0; k < frames; ++k) {
    const bool first = k == 0;
    const at::Tensor part =
        first ? values.narrow(1, 0, 1) : values.narrow(1, 1 + kGroup * (k - 1), kGroup);
    const at::Tensor rows = (first ? frame_ : group_).encode(to_blocks(part, p));
    latents.select(1, k).copy_(rows.view({b, h, w, -1}).permute({0, 3, 1, 2}));
  }
  return latents;
}

at::Tensor AnalyticCodec::decode(const at::Tensor& latents) {
  return decode_from(latents, true);
}

std::unique_ptr<DecodeState> AnalyticCodec::make_decode_state() {
  return std::make_unique<AnalyticDecodeState>();
}

at::Tensor AnalyticCodec::decode_stream(const at::Tensor& latents, DecodeState& state) {
  auto* const own = dynamic_cast<AnalyticDecodeState*>(&state);
  TORCH_INTERNAL_ASSERT(own != nullptr, "a decode state of another codec");
  at::Tensor pixels = decode_from(latents, own->first);
  own->first = false;
  return pixels;
}

at::Tensor AnalyticCodec::decode_from(const at::Tensor& latents, bool first) const {
  require(latents.dim() == 5 && latents.size(2) == options_.channels && latents.numel() > 0,
          "latents [{}] cannot be decoded: expected [B, T, {}, h, w]",
          fmt::join(latents.sizes(), ", "), options_.channels);
  const int64_t b = latents.size(0), frames = latents.size(1);
  const int64_t h = latents.size(3), w = latents.size(4), p = options_.patch;
  const at::Tensor values = latents.to(at::kFloat);
  const int64_t total = kGroup * frames - (first ? kGroup - 1 : 0);
  at::Tensor pixels = at::empty({b, total, 3, h * p, w * p}, values.options());
  int64_t done = 0;
  for (int64_t k = 0; k < frames; ++k) {
    const bool single = first && k == 0;
    const at::Tensor rows =
        values.select(1, k).permute({0, 2, 3, 1}).reshape({b * h * w, -1}).contiguous();
    const at::Tensor blocks = (single ? frame_ : group_).decode(rows);
    const int64_t n = single ? 1 : kGroup;
    pixels.narrow(1, done, n).copy_(from_blocks(blocks, b, h, w, p));
    done += n;
  }
  return pixels;
}

}  // namespace minwm::models
