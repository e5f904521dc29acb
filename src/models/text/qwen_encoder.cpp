#include "minwm/models/text/qwen_encoder.h"

#include <charconv>
#include <string_view>

#include "minwm/core/error.h"
#include "minwm/nn/norm.h"

namespace minwm::models {
namespace {

constexpr const char* kName = "Qwen2.5";
constexpr std::string_view kLayers = "layers.";

/// Cosines or sines of `angles` twice over, for the halves of a head: [1, 1, L, D].
at::Tensor halves_table(const at::Tensor& values, at::ScalarType type) {
  return at::cat({values, values}, 1).to(type).unsqueeze(0).unsqueeze(0);
}

/// x [B, A, L, D] rotated in halves: x cos + [-b, a] sin for x = [a, b].
at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  const auto halves = x.chunk(2, -1);
  return x * cosine + at::cat({halves[1].neg(), halves[0]}, -1) * sine;
}

at::Tensor heads(const at::Tensor& x, int64_t count) {
  return x.unflatten(2, {count, -1}).transpose(1, 2);
}

/// The name inside the language model, "" for what is outside of it.
std::string inner_name(std::string_view name) {
  const auto strip = [&name](std::string_view prefix) {
    name.remove_prefix(name.starts_with(prefix) ? prefix.size() : 0);
  };
  strip("model.");
  strip("language_model.");
  strip("model.");
  const bool other = name.starts_with("visual.") || name.starts_with("lm_head.");
  return other ? std::string() : std::string(name);
}

/// The number in "layers.N.…", or -1.
int64_t layer_of(std::string_view name) {
  if (!name.starts_with(kLayers)) {
    return -1;
  }
  int64_t index = -1;
  std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), index);
  return index;
}

}  // namespace

int64_t QwenConfig::layers_used() const {
  return num_hidden_layers - hidden_state_skip_layer.value_or(0);
}

bool QwenConfig::norm_used() const {
  return apply_final_norm || hidden_state_skip_layer.value_or(0) == 0;
}

void QwenConfig::check() const {
  require(vocab_size > 0 && hidden_size > 0 && intermediate_size > 0 && num_hidden_layers > 0,
          "{}: vocabulary {}, widths {} and {} and {} layers must be positive", kName, vocab_size,
          hidden_size, intermediate_size, num_hidden_layers);
  require(num_attention_heads > 0 && hidden_size % (2 * num_attention_heads) == 0,
          "{}: {} heads do not divide a width of {} into pairs", kName, num_attention_heads,
          hidden_size);
  require(num_key_value_heads > 0 && num_attention_heads % num_key_value_heads == 0,
          "{}: {} heads of keys do not divide {} heads of queries", kName, num_key_value_heads,
          num_attention_heads);
  const int64_t skip = hidden_state_skip_layer.value_or(0);
  require(skip >= 0 && skip <= num_hidden_layers, "{}: cannot skip {} of {} layers", kName, skip,
          num_hidden_layers);
}

QwenEncoder::QwenEncoder(const QwenConfig& config, at::ScalarType type) : config_(config) {
  config_.check();
  require_compute_type(type, kName);
  const FrozenWeights weights(*this, type);
  embedding_ = weights("embed_tokens.weight", {config_.vocab_size, config_.hidden_size});
  for (int64_t i = 0; i < config_.layers_used(); ++i) {
    layers_.push_back(make_layer(weights, i));
  }
  if (config_.norm_used()) {
    norm_ = weights("norm.weight", {config_.hidden_size}, 1);
  }
}

QwenEncoder::Layer QwenEncoder::make_layer(const FrozenWeights& weights, int64_t index) const {
  const int64_t dim = config_.hidden_size, wide = config_.intermediate_size;
  const int64_t inner = dim / config_.num_attention_heads * config_.num_key_value_heads;
  const std::string prefix = fmt::format("layers.{}.", index);
  const auto linear = [&](const char* name, int64_t in, int64_t out, bool bias) {
    return FrozenLinear(weights, prefix + name, in, out, bias);
  };
  return {.input_norm = weights(prefix + "input_layernorm.weight", {dim}, 1),
          .post_norm = weights(prefix + "post_attention_layernorm.weight", {dim}, 1),
          .q = linear("self_attn.q_proj", dim, dim, true),
          .k = linear("self_attn.k_proj", dim, inner, true),
          .v = linear("self_attn.v_proj", dim, inner, true),
          .o = linear("self_attn.o_proj", dim, dim, false),
          .gate = linear("mlp.gate_proj", dim, wide, false),
          .up = linear("mlp.up_proj", dim, wide, false),
          .down = linear("mlp.down_proj", wide, dim, false)};
}

at::Tensor QwenEncoder::run_layer(const Layer& layer, at::Tensor x, const at::Tensor& cosine,
                                  const at::Tensor& sine) const {
  const int64_t queries = config_.num_attention_heads, keys = config_.num_key_value_heads;
  const at::Tensor h = nn::rms_norm(x, layer.input_norm, config_.rms_norm_eps);
  const at::Tensor q = rotated(heads(layer.q(h), queries), cosine, sine);
  const at::Tensor k = rotated(heads(layer.k(h), keys), cosine, sine);
  const at::Tensor v = heads(layer.v(h), keys);
  const int64_t group = queries / keys;
  const at::Tensor attended = at::scaled_dot_product_attention(
      q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), {}, 0, true);
  x = x + layer.o(attended.transpose(1, 2).flatten(2));
  const at::Tensor wide = nn::rms_norm(x, layer.post_norm, config_.rms_norm_eps);
  return x + layer.down(at::silu(layer.gate(wide)) * layer.up(wide));
}

at::Tensor QwenEncoder::after_layers(const at::Tensor& ids, int64_t layers) const {
  at::NoGradGuard no_grad;
  require(ids.dim() == 2, "{}: ids of {} axes, expected [B, L]", kName, ids.dim());
  at::Tensor x = embed_ids(embedding_, ids, kName);
  const int64_t head = config_.hidden_size / config_.num_attention_heads;
  const at::Tensor exponents = at::arange(0, head, 2, at::kLong).to(at::kFloat) / head;
  const at::Tensor frequencies = at::pow(config_.rope_theta, exponents).reciprocal();
  const at::Tensor positions = at::arange(ids.size(1), at::kFloat);
  const at::Tensor angles = at::outer(positions, frequencies).to(embedding_.device());
  const at::Tensor cosine = halves_table(angles.cos(), embedding_.scalar_type());
  const at::Tensor sine = halves_table(angles.sin(), embedding_.scalar_type());
  for (int64_t i = 0; i < layers; ++i) {
    x = run_layer(layers_.at(static_cast<size_t>(i)), x, cosine, sine);
  }
  return x;
}

at::Tensor QwenEncoder::forward(const at::Tensor& ids) const {
  at::NoGradGuard no_grad;
  const at::Tensor x = after_layers(ids, config_.layers_used());
  return config_.norm_used() ? nn::rms_norm(x, norm_, config_.rms_norm_eps) : x;
}

QwenStates QwenEncoder::encode(const at::Tensor& ids, const at::Tensor& mask, int64_t crop) const {
  at::NoGradGuard no_grad;
  const auto lengths = valid_lengths(ids, mask, kName);
  require(crop >= 0 && crop <= ids.size(1), "{}: cannot crop {} of {} tokens", kName, crop,
          ids.size(1));
  at::Tensor out =
      at::zeros({ids.size(0), ids.size(1) - crop, config_.hidden_size}, embedding_.options());
  for (int64_t i = 0; i < ids.size(0); ++i) {
    const int64_t length = lengths[static_cast<size_t>(i)];
    if (length > crop) {
      const at::Tensor states = forward(ids.narrow(0, i, 1).narrow(1, 0, length))[0];
      out[i].narrow(0, 0, length - crop).copy_(states.slice(0, crop));
    }
  }
  return {out, mask.slice(1, crop).to(at::kLong)};
}

ParameterSource qwen_source(const ParameterSource& source, const QwenConfig& config) {
  return renamed(source,
                 [used = config.layers_used(), norm = config.norm_used()](const std::string& full) {
                   const std::string name = inner_name(full);
                   const bool needed = layer_of(name) < used && (norm || name != "norm.weight");
                   return needed ? name : std::string();
                 });
}

}  // namespace minwm::models
