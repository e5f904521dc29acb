#include "minwm/models/wan/block.h"

#include "minwm/nn/attention.h"
#include "minwm/nn/embedding.h"

namespace minwm::models {
namespace {

at::Tensor split_heads(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

at::Tensor merge_heads(const at::Tensor& x) { return x.reshape({x.size(0), x.size(1), -1}); }

at::Tensor norm_if(const nn::RmsNorm& norm, const at::Tensor& x) { return norm.is_empty() ? x : norm->forward(x); }

}  // namespace

// Matrices act on rows: q' = P^T q, k' = P^-1 k, v' = P^-1 v and o' = P o become q P, k P^-T, v P^-T and o P^T.
at::Tensor transform_queries(const at::Tensor& q, const Geometry& geometry) {
  const at::Tensor rotated = nn::apply_rotary(q, geometry.rotary);
  return geometry.camera() ? at::cat({rotated, nn::apply_frame_matrices(q, geometry.p)}, 2) : rotated;
}

at::Tensor transform_keys(const at::Tensor& k, const Geometry& geometry) {
  const at::Tensor rotated = nn::apply_rotary(k, geometry.rotary);
  return geometry.camera()
             ? at::cat({rotated, nn::apply_frame_matrices(k, geometry.p_inverse.transpose(2, 3))}, 2)
             : rotated;
}

at::Tensor transform_values(const at::Tensor& v, const Geometry& geometry) {
  return geometry.camera() ? at::cat({v, nn::apply_frame_matrices(v, geometry.p_inverse.transpose(2, 3))}, 2) : v;
}

WanSelfAttentionImpl::WanSelfAttentionImpl(const WanConfig& config) : heads_(config.num_heads) {
  q = register_module("q", torch::nn::Linear(config.dim, config.dim));
  k = register_module("k", torch::nn::Linear(config.dim, config.dim));
  v = register_module("v", torch::nn::Linear(config.dim, config.dim));
  o = register_module("o", torch::nn::Linear(config.dim, config.dim));
  if (config.qk_norm) {
    norm_q_ = register_module("norm_q", nn::RmsNorm(config.dim, config.eps));
    norm_k_ = register_module("norm_k", nn::RmsNorm(config.dim, config.eps));
  }
  if (config.camera) {
    prope_o = register_module("prope_o", torch::nn::Linear(config.dim, config.dim));
  }
}

Projections WanSelfAttentionImpl::project(const at::Tensor& x, at::ScalarType compute) const {
  return {split_heads(norm_if(norm_q_, nn::linear(x, q, compute)), heads_),
          split_heads(norm_if(norm_k_, nn::linear(x, k, compute)), heads_),
          split_heads(nn::linear(x, v, compute), heads_)};
}

at::Tensor WanSelfAttentionImpl::output(const at::Tensor& heads, const Geometry& geometry,
                                        at::ScalarType compute) const {
  if (!geometry.camera()) {
    return nn::linear(merge_heads(heads), o, compute);
  }
  const at::Tensor rotary_path = heads.narrow(2, 0, heads_);
  const at::Tensor camera_path =
      nn::apply_frame_matrices(heads.narrow(2, heads_, heads_), geometry.p.transpose(2, 3));
  return nn::linear(merge_heads(rotary_path), o, compute) + nn::linear(merge_heads(camera_path), prope_o, compute);
}

WanCrossAttentionImpl::WanCrossAttentionImpl(const WanConfig& config) : heads_(config.num_heads) {
  q_ = register_module("q", torch::nn::Linear(config.dim, config.dim));
  k_ = register_module("k", torch::nn::Linear(config.dim, config.dim));
  v_ = register_module("v", torch::nn::Linear(config.dim, config.dim));
  o_ = register_module("o", torch::nn::Linear(config.dim, config.dim));
  if (config.qk_norm) {
    norm_q_ = register_module("norm_q", nn::RmsNorm(config.dim, config.eps));
    norm_k_ = register_module("norm_k", nn::RmsNorm(config.dim, config.eps));
  }
  if (config.model_type == "i2v") {
    k_img_ = register_module("k_img", torch::nn::Linear(config.dim, config.dim));
    v_img_ = register_module("v_img", torch::nn::Linear(config.dim, config.dim));
    if (config.qk_norm) {
      norm_k_img_ = register_module("norm_k_img", nn::RmsNorm(config.dim, config.eps));
    }
  }
}

CrossContext WanCrossAttentionImpl::project_context(const at::Tensor& context, int64_t image_rows,
                                                    at::ScalarType compute) const {
  const at::Tensor text = context.slice(1, image_rows);
  CrossContext out{split_heads(norm_if(norm_k_, nn::linear(text, k_, compute)), heads_),
                   split_heads(nn::linear(text, v_, compute), heads_),
                   {},
                   {}};
  if (image_rows > 0) {
    const at::Tensor image = context.narrow(1, 0, image_rows);
    out.k_image = split_heads(norm_if(norm_k_img_, nn::linear(image, k_img_, compute)), heads_);
    out.v_image = split_heads(nn::linear(image, v_img_, compute), heads_);
  }
  return out;
}

at::Tensor WanCrossAttentionImpl::forward(const at::Tensor& x, const CrossContext& context,
                                          at::ScalarType compute) const {
  const at::Tensor queries = split_heads(norm_if(norm_q_, nn::linear(x, q_, compute)), heads_);
  at::Tensor heads = nn::attend(queries, context.k, context.v);
  if (context.k_image.defined()) {
    heads = heads + nn::attend(queries, context.k_image, context.v_image);
  }
  return nn::linear(merge_heads(heads), o_, compute);
}

WanBlockImpl::WanBlockImpl(const WanConfig& config) : eps_(config.eps) {
  modulation_ = register_parameter("modulation", at::zeros({1, 6, config.dim}));
  self_attn_ = register_module("self_attn", WanSelfAttention(config));
  if (config.cross_attn_norm) {
    norm3_ = register_module("norm3", torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.dim}).eps(config.eps)));
  }
  cross_attn_ = register_module("cross_attn", WanCrossAttention(config));
  ffn_ = register_module("ffn", nn::NamedLinears(std::vector<nn::NamedLinearsImpl::Spec>{
                                    {"0", config.dim, config.ffn_dim}, {"2", config.ffn_dim, config.dim}}));
}

at::Tensor WanBlockImpl::part(const at::Tensor& e0, int64_t index) const {
  return (e0.select(2, index) + modulation_.select(1, index)).unsqueeze(2);
}

at::Tensor WanBlockImpl::modulated(const at::Tensor& x, const at::Tensor& e0, int64_t first) const {
  const at::Tensor y = at::addcmul(part(e0, first), nn::layer_norm(x, eps_), 1 + part(e0, first + 1));
  return y.view({x.size(0), -1, x.size(3)});
}

Projections WanBlockImpl::project(const at::Tensor& x, const at::Tensor& e0, at::ScalarType compute) const {
  return self_attn_->project(modulated(x, e0, 0), compute);
}

at::Tensor WanBlockImpl::self_attention_output(const at::Tensor& x, const at::Tensor& e0, const Geometry& geometry,
                                               const Attend& attend, at::ScalarType compute) const {
  return self_attn_->output(attend(project(x, e0, compute)), geometry, compute).view(x.sizes());
}

at::Tensor WanBlockImpl::cross_attention_output(const at::Tensor& x, const CrossContext& context,
                                                at::ScalarType compute) const {
  const at::Tensor flat = x.reshape({x.size(0), -1, x.size(3)});
  const at::Tensor normed =
      norm3_.is_empty() ? flat : at::layer_norm(flat, {flat.size(2)}, norm3_->weight, norm3_->bias, eps_);
  return cross_attn_->forward(normed, context, compute).view(x.sizes());
}

at::Tensor WanBlockImpl::feed_forward_output(const at::Tensor& x, const at::Tensor& e0, at::ScalarType compute) const {
  const at::Tensor hidden = at::gelu(nn::linear(modulated(x, e0, 3), (*ffn_)[0], compute), "tanh");
  return nn::linear(hidden, (*ffn_)[1], compute).view(x.sizes());
}

at::Tensor WanBlockImpl::forward(const at::Tensor& x, const at::Tensor& e0, const Geometry& geometry,
                                 const CrossContext& context, const Attend& attend, at::ScalarType compute) const {
  // The residual stream stays float32 whatever the compute dtype.
  at::Tensor y = at::addcmul(x, self_attention_output(x, e0, geometry, attend, compute).to(x.scalar_type()), part(e0, 2));
  y = y + cross_attention_output(y, context, compute);
  return at::addcmul(y, feed_forward_output(y, e0, compute).to(x.scalar_type()), part(e0, 5));
}

}  // namespace minwm::models
