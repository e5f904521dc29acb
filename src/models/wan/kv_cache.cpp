#include "minwm/models/wan/backbone.h"
#include "minwm/nn/embedding.h"

namespace minwm::models {
namespace {

// Transformed context is kept between the denoising steps of a chunk only while it is small next to
// the cache of a large model (which would double).
constexpr int64_t kMemoBytes = 16LL << 20;  // per layer

}  // namespace

WanKvCache::WanKvCache(const CacheOptions& options, int64_t layers, int64_t height, int64_t width,
                       int64_t head_dim)
    : height_(height),
      width_(width),
      head_dim_(head_dim),
      sink_follows_window_(options.sink_follows_window),
      slots_(options.window_frames, options.sink_frames),
      layers_(static_cast<size_t>(layers)) {}

void WanKvCache::reset() {
  slots_.clear();
  text_ = image_features_ = at::Tensor();
  cross_ = std::make_shared<std::vector<CrossContext>>();
}

WanKvCache::LayerView WanKvCache::layer(int64_t index) const {
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

std::vector<int64_t> WanKvCache::positions() const {
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

Geometry WanKvCache::context_geometry(bool camera, const parallel::Context& context,
                                      const at::Device& device) const {
  const std::vector<int64_t> frames = positions();
  Geometry geometry;
  if (frames.empty()) {
    return geometry;
  }
  geometry.rotary =
      context.portion_of(nn::rotary_table(frames, height_, width_, head_dim_), height_ * width_)
          .to(device);
  if (camera) {
    TORCH_CHECK(p_inverse_.defined(),
                "KV cache: cameras were given for this chunk but not for the committed ones");
    geometry.p = geometry.p_inverse = p_inverse_.read(slots_.held());
  }
  return geometry;
}

std::pair<at::Tensor, at::Tensor> WanKvCache::Past::read() const {
  if (transformed || !k.defined()) {
    return {k, v};
  }
  at::NoGradGuard constants;  // gradients never flow into committed frames
  return {transform_keys(k, geometry), transform_values(v, geometry)};
}

WanKvCache::Past WanKvCache::past(int64_t index, const Geometry& geometry, bool may_keep) {
  if (slots_.held().empty()) {
    return {};
  }
  Layer& layer = layers_.at(static_cast<size_t>(index));
  if (layer.memo_version == slots_.version()) {
    return {layer.memo_k, layer.memo_v, {}, true};
  }
  const LayerView view = this->layer(index);
  Past past{view.k, view.v, geometry, false};
  const int64_t paths = geometry.camera() ? 2 : 1;
  if (may_keep && static_cast<int64_t>(view.k.nbytes() + view.v.nbytes()) * paths <= kMemoBytes) {
    std::tie(layer.memo_k, layer.memo_v) = past.read();
    layer.memo_version = slots_.version();
    return {layer.memo_k, layer.memo_v, {}, true};
  }
  return past;
}

void WanKvCache::commit(const std::vector<Projections>& layers, const at::Tensor& p_inverse,
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
