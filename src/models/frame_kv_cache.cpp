#include "minwm/models/frame_kv_cache.h"

#include "minwm/nn/heads.h"

namespace minwm::models {
namespace {

// Transformed context is kept between the denoising steps of a chunk only while it is small next to
// the cache of a large model (which would double).
constexpr int64_t kMemoBytes = 16LL << 20;  // per layer

}  // namespace

FrameKvCache::FrameKvCache(const CacheOptions& options, int64_t layers, int64_t height,
                           int64_t width, nn::RotaryAxes axes)
    : height_(height),
      width_(width),
      axes_(std::move(axes)),
      sink_follows_window_(options.sink_follows_window),
      slots_(options.window_frames, options.sink_frames),
      layers_(static_cast<size_t>(layers)) {}

void FrameKvCache::reset() {
  slots_.clear();
}

FrameKvCache::LayerView FrameKvCache::layer(int64_t index) const {
  const auto& layer = layers_.at(static_cast<size_t>(index));
  LayerView view;
  for (const auto& held : slots_.held()) {
    view.frames.push_back(held.frame);
  }
  if (!view.frames.empty()) {
    view.k = layer.k.read(slots_.held()).flatten(1, 2);
    view.v = layer.v.read(slots_.held()).flatten(1, 2);
  }
  return view;
}

std::vector<int64_t> FrameKvCache::positions() const {
  std::vector<int64_t> frames;
  for (const auto& held : slots_.held()) {
    frames.push_back(held.frame);
  }
  if (sink_follows_window_) {
    const auto held = static_cast<int64_t>(frames.size());
    const int64_t sinks = std::min(slots_.sink(), held);
    const int64_t next = held > sinks ? frames[static_cast<size_t>(sinks)] : slots_.seen();
    for (int64_t i = 0; i < sinks; ++i) {
      frames[static_cast<size_t>(i)] = next - sinks + i;
    }
  }
  return frames;
}

Geometry FrameKvCache::context_geometry(bool camera, const parallel::Context& context,
                                        const at::Device& device) const {
  const std::vector<int64_t> frames = positions();
  if (frames.empty()) {
    return {};
  }
  Geometry geometry = make_geometry(frames, height_, width_, axes_, {}, context, device);
  if (camera) {
    TORCH_CHECK(p_inverse_.defined(),
                "KV cache: cameras were given for this chunk but not for the committed ones");
    geometry.p = geometry.p_inverse = p_inverse_.read(slots_.held());
  }
  return geometry;
}

std::pair<at::Tensor, at::Tensor> FrameKvCache::Past::read() const {
  if (transformed || !k.defined()) {
    return {k, v};
  }
  at::NoGradGuard constants;  // gradients never flow into committed frames
  if (rotary_only && geometry.camera()) {
    const at::Tensor rotated = nn::split_heads(k, geometry.rotary, {});
    return {at::cat({rotated, rotated}, 2), at::cat({v, v}, 2)};
  }
  return {transform_keys(k, geometry), transform_values(v, geometry)};
}

FrameKvCache::Past FrameKvCache::past(int64_t index, const Geometry& geometry, bool may_keep,
                                      bool rotary_only) {
  if (slots_.held().empty()) {
    return {};
  }
  Layer& layer = layers_.at(static_cast<size_t>(index));
  if (layer.memo_version == slots_.version()) {
    return {layer.memo_k, layer.memo_v, {}, true, rotary_only};
  }
  const LayerView view = this->layer(index);
  Past past{view.k, view.v, geometry, false, rotary_only};
  const int64_t paths = geometry.camera() ? 2 : 1;
  if (may_keep && static_cast<int64_t>(view.k.nbytes() + view.v.nbytes()) * paths <= kMemoBytes) {
    std::tie(layer.memo_k, layer.memo_v) = past.read();
    layer.memo_version = slots_.version();
    return {layer.memo_k, layer.memo_v, {}, true, rotary_only};
  }
  return past;
}

void FrameKvCache::commit(const std::vector<Projections>& layers, const at::Tensor& p_inverse,
                          int64_t count) {
  const auto slots = slots_.append(count);
  for (size_t i = 0; i < layers.size(); ++i) {
    layers_[i].k.write(slots, layers[i].k.unflatten(1, {count, -1}), slots_.window());
    layers_[i].v.write(slots, layers[i].v.unflatten(1, {count, -1}), slots_.window());
  }
  if (p_inverse.defined()) {
    p_inverse_.write(slots, p_inverse, slots_.window());
  }
}

}  // namespace minwm::models
