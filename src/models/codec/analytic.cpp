#include "minwm/models/codec/analytic.h"

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include <ATen/ATen.h>

#include "blocks.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/core/safetensors.h"

namespace minwm::models {
namespace {

constexpr const char* kFormat = "minwm-analytic-codec";
constexpr const char* kVersion = "1";
constexpr int64_t kLargestPatch = 64;

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

NamedTensors named_tensors(const AnalyticBasis& frame, const AnalyticBasis& group) {
  return {{"frame.basis", frame.basis}, {"frame.mean", frame.mean}, {"frame.scale", frame.scale},
          {"group.basis", group.basis}, {"group.mean", group.mean}, {"group.scale", group.scale}};
}

NamedTensors named_tensors(const NeighbourhoodDecoder& frame, const NeighbourhoodDecoder& group) {
  return {{"frame.decoder.weight", frame.weight},
          {"frame.decoder.bias", frame.bias},
          {"group.decoder.weight", group.weight},
          {"group.decoder.bias", group.bias}};
}

uint64_t hash_of(const NamedTensors& tensors) {
  uint64_t hash = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::string_view bytes(static_cast<const char*>(tensor.const_data_ptr()),
                                 tensor.nbytes());
    hash = stream_key({.seed = hash, .purpose = bytes});
  }
  return hash;
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
  int64_t whole(const std::string& key) const {
    const double value = number(key);
    require(value == std::floor(value) && std::abs(value) < 1e6, "{}: metadata {} = {}", where_,
            key, value);
    return static_cast<int64_t>(value);
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

NeighbourhoodDecoder load_neighbourhood(const Safetensors& file, const std::string& where,
                                        const std::string& part, int64_t reach, int64_t channels,
                                        int64_t size) {
  const int64_t side = 2 * reach + 1;
  return {load_tensor(file, where, part + ".decoder.weight", {side, side, channels, size}),
          load_tensor(file, where, part + ".decoder.bias", {size})};
}

/// `options`, checked; an error names the file.
template <class Checked>
Checked checked(const Checked& options, const std::string& where) {
  try {
    options.check();
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
  return options;
}

/// Whether the first chunk has been decoded.
struct AnalyticDecodeState : DecodeState {
  bool first = true;
};

}  // namespace

void AnalyticCodecOptions::check() const {
  require(patch >= 2 && patch <= kLargestPatch, "codec patch {}: expected 2 to {} pixels", patch,
          kLargestPatch);
  require(channels >= 1 && channels <= 3 * patch * patch,
          "codec channels {}: a patch of {} x {} pixels has {} numbers", channels, patch, patch,
          3 * patch * patch);
  require(whitening >= 0 && whitening <= 1, "codec whitening {}: expected 0 (none) to 1 (full)",
          whitening);
}

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
      name_(fmt::format("analytic-{0}x{0}x{1}-{2:016x}", options_.patch, options_.channels,
                        hash_of(named_tensors(frame_, group_)))) {}

AnalyticCodec AnalyticCodec::load(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Safetensors file(path);
  const Metadata metadata(file, where);
  require(file.metadata().contains("format") && metadata.text("format") == kFormat,
          "{}: not an analytic codec (metadata format = '{}' expected)", where, kFormat);
  require(metadata.text("version") == kVersion, "{}: codec version {}, this program reads {}",
          where, metadata.text("version"), kVersion);
  const auto options =
      checked(AnalyticCodecOptions{metadata.whole("patch"), metadata.whole("channels"),
                                   metadata.number("whitening")},
              where);
  const int64_t size = 3 * options.patch * options.patch;
  AnalyticCodec codec(options, load_basis(file, where, "frame", options.channels, size),
                      load_basis(file, where, "group", options.channels, kGroup * size));
  require(codec.name_ == metadata.text("name"), "{}: damaged: the content is that of {}, not of {}",
          where, codec.name_, metadata.text("name"));
  if (!file.metadata().contains("decoder") && !file.contains("frame.decoder.weight")) {
    return codec;  // every block alone; so are all files from before there was another decoder
  }
  const auto decoder = checked(
      NeighbourhoodOptions{metadata.whole("decoder_reach"), metadata.number("decoder_noise"),
                           metadata.number("decoder_ridge")},
      where);
  codec.neighbourhood_ = {
      decoder, load_neighbourhood(file, where, "frame", decoder.reach, options.channels, size),
      load_neighbourhood(file, where, "group", decoder.reach, options.channels, kGroup * size)};
  require(codec.decoder() == metadata.text("decoder"),
          "{}: damaged: the content is that of decoder {}, not of {}", where, codec.decoder(),
          metadata.text("decoder"));
  return codec;
}

void AnalyticCodec::save(const std::filesystem::path& path) const {
  NamedTensors tensors = named_tensors(frame_, group_);
  std::map<std::string, std::string> metadata = {
      {"format", kFormat},
      {"version", kVersion},
      {"name", name_},
      {"patch", std::to_string(options_.patch)},
      {"channels", std::to_string(options_.channels)},
      {"whitening", fmt::format("{}", options_.whitening)}};
  if (neighbourhood_) {
    for (auto& named : named_tensors(neighbourhood_->frame, neighbourhood_->group)) {
      tensors.push_back(std::move(named));
    }
    metadata["decoder"] = decoder();
    metadata["decoder_reach"] = std::to_string(neighbourhood_->options.reach);
    metadata["decoder_noise"] = fmt::format("{}", neighbourhood_->options.noise);
    metadata["decoder_ridge"] = fmt::format("{}", neighbourhood_->options.ridge);
  }
  write_safetensors(path, tensors, metadata);
}

AnalyticCodec AnalyticCodec::without_neighbourhood() const {
  return {options_, frame_, group_};
}

std::string AnalyticCodec::decoder() const {
  if (!neighbourhood_) {
    return "block";
  }
  return fmt::format("neighbourhood-{0}x{0}-{1:016x}", 2 * neighbourhood_->options.reach + 1,
                     hash_of(named_tensors(neighbourhood_->frame, neighbourhood_->group)));
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

/// One latent frame: [B, C, h, w] → [B h w, D].
at::Tensor AnalyticCodec::decode_blocks(const at::Tensor& latents, bool single) const {
  if (neighbourhood_) {
    return (single ? neighbourhood_->frame : neighbourhood_->group).decode(latents);
  }
  const at::Tensor rows = latents.permute({0, 2, 3, 1}).reshape({-1, options_.channels});
  return (single ? frame_ : group_).decode(rows.contiguous());
}

at::Tensor AnalyticCodec::decode_from(const at::Tensor& latents, bool first) const {
  require(latents.dim() == 5 && latents.size(2) == options_.channels && latents.numel() > 0,
          "latents [{}] cannot be decoded: expected [B, T, {}, h, w]",
          fmt::join(latents.sizes(), ", "), options_.channels);
  const int64_t frames = latents.size(1), p = options_.patch;
  const at::Tensor values = latents.to(at::kFloat);
  const int64_t total = kGroup * frames - (first ? kGroup - 1 : 0);
  at::Tensor pixels = at::empty(
      {latents.size(0), total, 3, latents.size(3) * p, latents.size(4) * p}, values.options());
  int64_t done = 0;
  for (int64_t k = 0; k < frames; ++k) {
    const bool single = first && k == 0;
    const int64_t n = single ? 1 : kGroup;
    put_blocks(decode_blocks(values.select(1, k), single), p, pixels.narrow(1, done, n));
    done += n;
  }
  return pixels;
}

}  // namespace minwm::models
