#include "minwm/models/hy/block.h"

#include "minwm/nn/pointwise.h"

namespace minwm::models {
namespace {

constexpr double kEps = 1e-6;

/// Shift, scale, gate of the attention, then of the feed-forward: six of [B, T, D] float32.
using Modulation = std::vector<at::Tensor>;

Modulation modulation(const HyStreamWeights& weights, const HyVectors& vectors,
                      at::ScalarType compute) {
  // One product per distinct vector, whatever the number of frames.
  const at::Tensor rows =
      nn::linear(at::silu(vectors.rows), (*weights.mod)[0], compute).to(at::kFloat);
  return rows.index_select(0, vectors.index.flatten())
      .unflatten(0, vectors.index.sizes())
      .chunk(6, -1);
}

Modulation frames_from(Modulation m, int64_t first) {
  if (first > 0) {
    for (auto& part : m) {
      part = part.slice(1, first);
    }
  }
  return m;
}

/// x [B, T, S, D] modulated, as rows [B, T S, D].
at::Tensor modulated_rows(const at::Tensor& x, const Modulation& m, at::ScalarType compute) {
  return nn::modulated_norm(x, m[0], m[1], kEps, compute).flatten(1, 2);
}

at::Tensor query(const HyStreamWeights& w, const at::Tensor& rows, int64_t heads,
                 at::ScalarType compute) {
  return w.q_norm->forward(head_rows(nn::linear(rows, w.q, compute), heads));
}

Projections keys(const HyStreamWeights& w, const at::Tensor& rows, int64_t heads,
                 at::ScalarType compute) {
  return {{},
          w.k_norm->forward(head_rows(nn::linear(rows, w.k, compute), heads)),
          head_rows(nn::linear(rows, w.v, compute), heads)};
}

/// x + gate * attended, then the feed-forward.
at::Tensor leave(const HyStreamWeights& w, const at::Tensor& x, const at::Tensor& attended,
                 const Modulation& m, at::ScalarType compute) {
  const at::Tensor y = nn::gated_add(x, attended.view(x.sizes()), m[2]);
  const at::Tensor hidden =
      nn::gelu(nn::linear(nn::modulated_norm(y, m[3], m[4], kEps, compute), (*w.mlp)[0], compute));
  return nn::gated_add(y, nn::linear(hidden, (*w.mlp)[1], compute), m[5]);
}

}  // namespace

HyBlockImpl::HyBlockImpl(const HyConfig& config) : config_(config) {
  const int64_t d = config.hidden_size;
  using Specs = std::vector<nn::NamedLinearsImpl::Spec>;
  auto stream = [&](const std::string& name) {
    HyStreamWeights w;
    w.mod = register_module(name + "_mod", nn::NamedLinears(Specs{{"linear", d, 6 * d}}));
    w.q = register_module(name + "_attn_q", nn::Linear(d, d));
    w.k = register_module(name + "_attn_k", nn::Linear(d, d));
    w.v = register_module(name + "_attn_v", nn::Linear(d, d));
    w.q_norm = register_module(name + "_attn_q_norm", nn::RmsNorm(config.head_dim(), kEps));
    w.k_norm = register_module(name + "_attn_k_norm", nn::RmsNorm(config.head_dim(), kEps));
    w.proj = register_module(name + "_attn_proj", nn::Linear(d, d));
    const int64_t wide = config.mlp_width();
    w.mlp =
        register_module(name + "_mlp", nn::NamedLinears(Specs{{"fc1", d, wide}, {"fc2", wide, d}}));
    return w;
  };
  image_ = stream("img");
  text_ = stream("txt");
  if (config.camera) {
    prope_proj_ = register_module("img_attn_prope_proj", nn::Linear(d, d));
  }
}

Projections HyBlockImpl::image_keys(const at::Tensor& image, const HyVectors& vectors,
                                    at::ScalarType compute) const {
  const Modulation m = modulation(image_, vectors, compute);
  return keys(image_, modulated_rows(image, m, compute), config_.heads_num, compute);
}

Projections HyBlockImpl::text_keys(const at::Tensor& text, const HyVectors& vectors,
                                   at::ScalarType compute) const {
  const Modulation m = modulation(text_, vectors, compute);
  return keys(text_, modulated_rows(text.unsqueeze(1), m, compute), config_.heads_num, compute);
}

HyStreams HyBlockImpl::forward(const HyStreams& x, const Call& call, const Attend& attend,
                               at::ScalarType compute) const {
  const int64_t heads = config_.heads_num;
  Rows rows;
  Modulation image_m, text_m;
  at::Tensor image = x.image, text;
  if (image.defined()) {
    image_m = modulation(image_, call.image, compute);
    const at::Tensor u = modulated_rows(image, image_m, compute);
    rows.image = keys(image_, u, heads, compute);
    rows.image.q = query(image_, u.slice(1, call.first * image.size(2)), heads, compute);
    image = image.slice(1, call.first);
    image_m = frames_from(image_m, call.first);
  }
  if (x.text.defined()) {
    text = x.text.unsqueeze(1);  // one frame of text rows
    text_m = modulation(text_, call.text, compute);
    const at::Tensor u = modulated_rows(text, text_m, compute);
    rows.text = keys(text_, u, heads, compute);
    if (call.text_leaves) {
      rows.text.q = query(text_, u, heads, compute);
    }
  }
  const Heads out = attend(rows);
  HyStreams left;
  if (image.defined()) {
    const auto paths = path_rows(out.image, call.geometry.cameras_from(call.first));
    at::Tensor attended = nn::linear(paths[0], image_.proj, compute);
    if (paths.size() == 2) {
      attended = attended + nn::linear(paths[1], prope_proj_, compute);
    }
    left.image = leave(image_, image, attended, image_m, compute);
  }
  if (text.defined() && call.text_leaves) {
    const at::Tensor attended = nn::linear(path_rows(out.text, {}).front(), text_.proj, compute);
    left.text = leave(text_, text, attended, text_m, compute).squeeze(1);
  }
  return left;
}

}  // namespace minwm::models
