#include "minwm/models/wan/block.h"

#include "minwm/nn/attention.h"
#include "minwm/nn/heads.h"
#include "minwm/nn/parameters.h"
#include "minwm/nn/pointwise.h"

namespace minwm::models {
namespace {

at::Tensor norm_if(const nn::RmsNorm& norm, const at::Tensor& x) {
  return norm.is_empty() ? x : norm->forward(x);
}

}  // namespace

WanSelfAttentionImpl::WanSelfAttentionImpl(const WanConfig& config) : heads_(config.num_heads) {
  q = register_module("q", nn::Linear(config.dim, config.dim));
  k = register_module("k", nn::Linear(config.dim, config.dim));
  v = register_module("v", nn::Linear(config.dim, config.dim));
  o = register_module("o", nn::Linear(config.dim, config.dim));
  if (config.qk_norm) {
    norm_q_ = register_module("norm_q", nn::RmsNorm(config.dim, config.eps));
    norm_k_ = register_module("norm_k", nn::RmsNorm(config.dim, config.eps));
  }
  if (config.camera) {
    prope_o = register_module("prope_o", nn::Linear(config.dim, config.dim));
  }
}

Projections WanSelfAttentionImpl::project(const at::Tensor& x, at::ScalarType compute) const {
  return {head_rows(norm_if(norm_q_, nn::linear(x, q, compute)), heads_),
          head_rows(norm_if(norm_k_, nn::linear(x, k, compute)), heads_),
          head_rows(nn::linear(x, v, compute), heads_)};
}

at::Tensor WanSelfAttentionImpl::output(const at::Tensor& heads, const Geometry& geometry,
                                        at::ScalarType compute) const {
  const auto rows = path_rows(heads, geometry);
  const at::Tensor out = nn::linear(rows[0], o, compute);
  return rows.size() == 1 ? out : out + nn::linear(rows[1], prope_o, compute);
}

WanCrossAttentionImpl::WanCrossAttentionImpl(const WanConfig& config) : heads_(config.num_heads) {
  q_ = register_module("q", nn::Linear(config.dim, config.dim));
  k_ = register_module("k", nn::Linear(config.dim, config.dim));
  v_ = register_module("v", nn::Linear(config.dim, config.dim));
  o_ = register_module("o", nn::Linear(config.dim, config.dim));
  if (config.qk_norm) {
    norm_q_ = register_module("norm_q", nn::RmsNorm(config.dim, config.eps));
    norm_k_ = register_module("norm_k", nn::RmsNorm(config.dim, config.eps));
  }
  if (config.model_type == "i2v") {
    k_img_ = register_module("k_img", nn::Linear(config.dim, config.dim));
    v_img_ = register_module("v_img", nn::Linear(config.dim, config.dim));
    if (config.qk_norm) {
      norm_k_img_ = register_module("norm_k_img", nn::RmsNorm(config.dim, config.eps));
    }
  }
}

CrossContext WanCrossAttentionImpl::project_context(const at::Tensor& context, int64_t image_rows,
                                                    at::ScalarType compute) const {
  const at::Tensor text = context.slice(1, image_rows);
  CrossContext out{head_rows(norm_if(norm_k_, nn::linear(text, k_, compute)), heads_),
                   head_rows(nn::linear(text, v_, compute), heads_),
                   {},
                   {}};
  if (image_rows > 0) {
    const at::Tensor image = context.narrow(1, 0, image_rows);
    out.k_image = head_rows(norm_if(norm_k_img_, nn::linear(image, k_img_, compute)), heads_);
    out.v_image = head_rows(nn::linear(image, v_img_, compute), heads_);
  }
  return out;
}

at::Tensor WanCrossAttentionImpl::forward(const at::Tensor& x, const CrossContext& context,
                                          at::ScalarType compute) const {
  const at::Tensor queries = head_rows(norm_if(norm_q_, nn::linear(x, q_, compute)), heads_);
  at::Tensor heads = nn::attend(queries, context.k, context.v);
  if (context.k_image.defined()) {
    heads = heads + nn::attend(queries, context.k_image, context.v_image);
  }
  return nn::linear(nn::merge_heads(heads, {}), o_, compute);
}

WanBlockImpl::WanBlockImpl(const WanConfig& config) : eps_(config.eps) {
  modulation_ = register_parameter("modulation", nn::make_parameter({1, 6, config.dim}));
  self_attn_ = register_module("self_attn", WanSelfAttention(config));
  if (config.cross_attn_norm) {
    norm3_ = register_module("norm3", nn::AffineLayerNorm(config.dim, config.eps));
  }
  cross_attn_ = register_module("cross_attn", WanCrossAttention(config));
  ffn_ = register_module(
      "ffn", nn::NamedLinears(std::vector<nn::NamedLinearsImpl::Spec>{
                 {"0", config.dim, config.ffn_dim}, {"2", config.ffn_dim, config.dim}}));
}

std::vector<at::Tensor> WanBlockImpl::modulation(const at::Tensor& e0) const {
  return (e0 + modulation_.unsqueeze(1)).unbind(2);
}

Projections WanBlockImpl::project(const at::Tensor& x, const at::Tensor& e0,
                                  at::ScalarType compute) const {
  const auto m = modulation(e0);
  return project(x, m, compute);
}

Projections WanBlockImpl::project(const at::Tensor& x, const std::vector<at::Tensor>& m,
                                  at::ScalarType compute) const {
  return self_attn_->project(nn::modulated_norm(x, m[0], m[1], eps_, compute).flatten(1, 2),
                             compute);
}

at::Tensor WanBlockImpl::self_attention_output(const at::Tensor& x,
                                               const std::vector<at::Tensor>& m,
                                               const Geometry& geometry, const Attend& attend,
                                               at::ScalarType compute) const {
  return self_attn_->output(attend(project(x, m, compute)), geometry, compute).view(x.sizes());
}

at::Tensor WanBlockImpl::cross_attention_output(const at::Tensor& x, const CrossContext& context,
                                                at::ScalarType compute) const {
  const at::Tensor flat = x.reshape({x.size(0), -1, x.size(3)});
  const at::Tensor normed = norm3_.is_empty() ? flat : norm3_->forward(flat);
  return cross_attn_->forward(normed, context, compute).view(x.sizes());
}

at::Tensor WanBlockImpl::feed_forward_output(const at::Tensor& x, const std::vector<at::Tensor>& m,
                                             at::ScalarType compute) const {
  const at::Tensor hidden =
      nn::gelu(nn::linear(nn::modulated_norm(x, m[3], m[4], eps_, compute), (*ffn_)[0], compute));
  return nn::linear(hidden, (*ffn_)[1], compute);
}

at::Tensor WanBlockImpl::forward(const at::Tensor& x, const at::Tensor& e0,
                                 const Geometry& geometry, const CrossContext& context,
                                 const Attend& attend, at::ScalarType compute,
                                 int64_t first) const {
  auto m = modulation(e0);
  Projections p = project(x, m, compute);
  at::Tensor y = x;
  if (first > 0) {
    p.q = p.q.slice(1, first * x.size(2));
    y = x.slice(1, first);
    for (auto& part : m) {
      part = part.slice(1, first);
    }
  }
  // The residual stream stays float32 whatever the compute dtype.
  const at::Tensor heads = attend(p);
  y = nn::gated_add(
      y, self_attn_->output(heads, geometry.cameras_from(first), compute).view(y.sizes()), m[2]);
  y = y + cross_attention_output(y, context, compute);
  return nn::gated_add(y, feed_forward_output(y, m, compute), m[5]);
}

}  // namespace minwm::models
