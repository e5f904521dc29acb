#include "minwm/models/vision/siglip.h"

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/nn/attention.h"
#include "minwm/nn/pointwise.h"

namespace minwm::models {
namespace {

constexpr const char* kName = "SigLIP";
constexpr const char* kHead = "vision_model.head.";

}  // namespace

void SiglipConfig::check() const {
  require(hidden_size > 0 && intermediate_size > 0 && num_hidden_layers >= 0,
          "{}: widths {} and {} must be positive", kName, hidden_size, intermediate_size);
  require(num_attention_heads > 0 && hidden_size % num_attention_heads == 0,
          "{}: {} heads do not divide a width of {}", kName, num_attention_heads, hidden_size);
  require(patch_size > 0 && image_size >= patch_size, "{}: patches of {} in an image of {} pixels",
          kName, patch_size, image_size);
}

SiglipVision::SiglipVision(const SiglipConfig& config, at::ScalarType type) : config_(config) {
  config_.check();
  require_compute_type(type, kName);
  const FrozenWeights weights(*this, type);
  const int64_t dim = config_.hidden_size, patch = config_.patch_size;
  const std::string embeddings = "vision_model.embeddings.";
  patch_weight_ = weights(embeddings + "patch_embedding.weight", {dim, 3, patch, patch});
  patch_bias_ = weights(embeddings + "patch_embedding.bias", {dim});
  positions_ = weights(embeddings + "position_embedding.weight", {config_.tokens(), dim});
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    layers_.push_back(make_layer(weights, i));
  }
  norm_.emplace(weights, "vision_model.post_layernorm", dim, config_.layer_norm_eps);
  if (config_.head) {
    head_ = make_head(weights);
  }
}

SiglipVision::Layer SiglipVision::make_layer(const FrozenWeights& weights, int64_t index) const {
  const int64_t dim = config_.hidden_size, wide = config_.intermediate_size;
  const std::string prefix = fmt::format("vision_model.encoder.layers.{}.", index);
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return FrozenLinear(weights, prefix + name, in, out, true);
  };
  const auto norm = [&](const char* name) {
    return FrozenLayerNorm(weights, prefix + name, dim, config_.layer_norm_eps);
  };
  return {.norm1 = norm("layer_norm1"),
          .norm2 = norm("layer_norm2"),
          .q = linear("self_attn.q_proj", dim, dim),
          .k = linear("self_attn.k_proj", dim, dim),
          .v = linear("self_attn.v_proj", dim, dim),
          .out = linear("self_attn.out_proj", dim, dim),
          .fc1 = linear("mlp.fc1", dim, wide),
          .fc2 = linear("mlp.fc2", wide, dim)};
}

SiglipVision::Head SiglipVision::make_head(const FrozenWeights& weights) const {
  const int64_t dim = config_.hidden_size, wide = config_.intermediate_size;
  const std::string prefix = kHead;
  return {.probe = weights(prefix + "probe", {1, 1, dim}),
          .in_weight = weights(prefix + "attention.in_proj_weight", {3 * dim, dim}),
          .in_bias = weights(prefix + "attention.in_proj_bias", {3 * dim}),
          .out = FrozenLinear(weights, prefix + "attention.out_proj", dim, dim, true),
          .fc1 = FrozenLinear(weights, prefix + "mlp.fc1", dim, wide, true),
          .fc2 = FrozenLinear(weights, prefix + "mlp.fc2", wide, dim, true),
          .norm = FrozenLayerNorm(weights, prefix + "layernorm", dim, config_.layer_norm_eps)};
}

at::Tensor SiglipVision::attend(const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v) const {
  const auto heads = [this](const at::Tensor& x) {
    return x.unflatten(2, {config_.num_attention_heads, -1});
  };
  return nn::attend(heads(q), heads(k), heads(v)).flatten(2);
}

at::Tensor SiglipVision::run_layer(const Layer& layer, at::Tensor x) const {
  const at::Tensor h = layer.norm1(x);
  x = x + layer.out(attend(layer.q(h), layer.k(h), layer.v(h)));
  return x + layer.fc2(nn::gelu(layer.fc1(layer.norm2(x))));
}

at::Tensor SiglipVision::embed(const at::Tensor& pixels) const {
  at::NoGradGuard no_grad;
  const int64_t size = config_.image_size;
  require(
      pixels.dim() == 4 && pixels.size(1) == 3 && pixels.size(2) == size && pixels.size(3) == size,
      "{}: pixels are [{}], expected [B, 3, {}, {}]", kName, fmt::join(pixels.sizes(), ", "), size,
      size);
  const at::Tensor patches = at::conv2d(pixels.to(patch_weight_.options()), patch_weight_,
                                        patch_bias_, config_.patch_size);
  return patches.flatten(2).transpose(1, 2) + positions_;
}

at::Tensor SiglipVision::forward(const at::Tensor& pixels) const {
  at::NoGradGuard no_grad;
  at::Tensor x = embed(pixels);
  for (const auto& layer : layers_) {
    x = run_layer(layer, x);
  }
  return (*norm_)(x);
}

at::Tensor SiglipVision::pool(const at::Tensor& states) const {
  at::NoGradGuard no_grad;
  require(head_.has_value(), "{}: was built without its head", kName);
  const auto weights = head_->in_weight.chunk(3), biases = head_->in_bias.chunk(3);
  const at::Tensor query = head_->probe.expand({states.size(0), 1, -1});
  const at::Tensor attended =
      attend(at::linear(query, weights[0], biases[0]), at::linear(states, weights[1], biases[1]),
             at::linear(states, weights[2], biases[2]));
  const at::Tensor h = head_->out(attended);
  return (h + head_->fc2(nn::gelu(head_->fc1(head_->norm(h))))).select(1, 0);
}

ParameterSource siglip_source(const ParameterSource& source, const SiglipConfig& config) {
  return renamed(source, [head = config.head](const std::string& name) {
    return !head && name.starts_with(kHead) ? std::string() : name;
  });
}

}  // namespace minwm::models
