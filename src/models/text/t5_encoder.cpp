#include "minwm/models/text/t5_encoder.h"

#include <cmath>
#include <limits>

#include "minwm/core/error.h"
#include "minwm/models/text/hf_names.h"
#include "minwm/nn/norm.h"
#include "minwm/nn/pointwise.h"

namespace minwm::models {
namespace {

// Half of the range of float16 is not enough for umT5's residual stream: infinities are brought
// back this far inside of it.
constexpr double kHalfLimit = 65504 - 1000;

double lowest(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return -65504;
    case at::kBFloat16:
      return -3.3895313892515355e38;
    default:
      return std::numeric_limits<float>::lowest();
  }
}

int64_t bucket(int64_t relative, int64_t num_buckets, int64_t max_distance, bool bidirectional) {
  const int64_t n = bidirectional ? num_buckets / 2 : num_buckets, exact = n / 2;
  const int64_t base = bidirectional && relative > 0 ? n : 0;
  const int64_t distance = bidirectional ? std::abs(relative) : std::max<int64_t>(-relative, 0);
  if (distance < exact) {
    return base + distance;
  }
  // Float32 steps as in the reference; the logarithm rounded from double, the same everywhere.
  const float ratio = static_cast<float>(distance) / static_cast<float>(exact);
  const auto log_ratio = static_cast<float>(std::log(static_cast<double>(ratio)));
  const auto log_range =
      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const float place = log_ratio / log_range * static_cast<float>(n - exact);
  return base + std::min(n - 1, exact + static_cast<int64_t>(place));
}

at::Tensor heads(const at::Tensor& x, int64_t count) {
  return x.unflatten(2, {count, -1}).transpose(1, 2);
}

at::Tensor bounded(const at::Tensor& x) {
  const bool overflow = x.scalar_type() == at::kHalf && x.isinf().any().item<bool>();
  return overflow ? x.clamp(-kHalfLimit, kHalfLimit) : x;
}

}  // namespace

T5Config T5Config::umt5_xxl() {
  return {.name = "umT5-XXL",
          .vocab_size = 256384,
          .dim = 4096,
          .dim_attn = 4096,
          .dim_ffn = 10240,
          .num_heads = 64,
          .num_layers = 24};
}

void T5Config::check() const {
  require(vocab_size > 0 && dim > 0 && dim_ffn > 0 && num_layers > 0,
          "{}: vocabulary {}, width {}, feed-forward width {} and {} blocks must be positive", name,
          vocab_size, dim, dim_ffn, num_layers);
  require(num_heads > 0 && dim_attn > 0 && dim_attn % num_heads == 0,
          "{}: {} heads do not divide an attention width of {}", name, num_heads, dim_attn);
  require(num_buckets >= 4 && num_buckets % 4 == 0 && max_distance > num_buckets / 4,
          "{}: {} buckets up to distance {}: expected a multiple of 4 and a distance above a "
          "quarter of it",
          name, num_buckets, max_distance);
}

at::Tensor t5_buckets(const at::Tensor& relative, int64_t num_buckets, int64_t max_distance,
                      bool bidirectional) {
  const at::Tensor from = relative.to(at::kCPU, at::kLong).contiguous();
  at::Tensor out = at::empty_like(from);
  const auto* in = from.const_data_ptr<int64_t>();
  auto* place = out.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < from.numel(); ++i) {
    place[i] = bucket(in[i], num_buckets, max_distance, bidirectional);
  }
  return out;
}

T5Encoder::T5Encoder(const T5Config& config, at::ScalarType type) : config_(config) {
  config_.check();
  require_compute_type(type, config_.name);
  const FrozenWeights weights(*this, type);
  embedding_ = weights(own_name("token_embedding.weight"), {config_.vocab_size, config_.dim});
  if (config_.shared_bias) {
    shared_bias_ = weights(own_name("pos_embedding.embedding.weight"),
                           {config_.num_buckets, config_.num_heads});
  }
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    blocks_.push_back(make_block(weights, i));
  }
  norm_ = weights(own_name("norm.weight"), {config_.dim}, 1);
}

std::string T5Encoder::own_name(const std::string& wan_name) const {
  return config_.names == T5Names::kWan ? wan_name : t5_hf_name(wan_name);
}

T5Encoder::Block T5Encoder::make_block(const FrozenWeights& weights, int64_t index) const {
  const int64_t dim = config_.dim, inner = config_.dim_attn, wide = config_.dim_ffn;
  const std::string prefix = fmt::format("blocks.{}.", index);
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    std::string full = own_name(prefix + name + ".weight");
    full.resize(full.size() - std::string_view(".weight").size());
    return FrozenLinear(weights, full, in, out, false);
  };
  const auto norm = [&](const char* name) {
    return weights(own_name(prefix + name + ".weight"), {dim}, 1);
  };
  return {.norm1 = norm("norm1"),
          .norm2 = norm("norm2"),
          .q = linear("attn.q", dim, inner),
          .k = linear("attn.k", dim, inner),
          .v = linear("attn.v", dim, inner),
          .o = linear("attn.o", inner, dim),
          .gate = linear("ffn.gate.0", dim, wide),
          .fc1 = linear("ffn.fc1", dim, wide),
          .fc2 = linear("ffn.fc2", wide, dim),
          .bias = shared_bias_.defined()
                      ? shared_bias_
                      : weights(own_name(prefix + "pos_embedding.embedding.weight"),
                                {config_.num_buckets, config_.num_heads})};
}

at::Tensor T5Encoder::relative_bias(int64_t block, int64_t length) const {
  const at::Tensor distances = at::arange(1 - length, length, at::kLong);
  const at::Tensor buckets = t5_buckets(distances, config_.num_buckets, config_.max_distance);
  const at::Tensor& table = blocks_.at(static_cast<size_t>(block)).bias;
  const at::Tensor rows = at::embedding(table, buckets.to(table.device()));
  // Query i reads the L distances from -i on: windows of the row of all distances, last one first.
  return rows.t().unfold(1, length, 1).flip(1);
}

at::Tensor T5Encoder::run_block(const Block& block, at::Tensor x, const at::Tensor& bias) const {
  const at::Tensor h = nn::rms_norm(x, block.norm1, config_.eps);
  const int64_t a = config_.num_heads;
  const at::Tensor q = heads(block.q(h), a), k = heads(block.k(h), a), v = heads(block.v(h), a);
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) + bias;
  const at::Tensor weights = at::softmax(scores, -1, at::kFloat).to(v.scalar_type());
  x = bounded(x + block.o(at::matmul(weights, v).transpose(1, 2).flatten(2)));
  const at::Tensor wide = nn::rms_norm(x, block.norm2, config_.eps);
  return bounded(x + block.fc2(block.fc1(wide) * nn::gelu(block.gate(wide))));
}

at::Tensor T5Encoder::after_blocks(const at::Tensor& ids, const at::Tensor& mask,
                                   int64_t blocks) const {
  at::NoGradGuard no_grad;
  require(ids.dim() == 2 && (!mask.defined() || mask.sizes() == ids.sizes()),
          "{}: ids of {} axes, expected [B, L] and a mask of the same shape", config_.name,
          ids.dim());
  at::Tensor x = embed_ids(embedding_, ids, config_.name);
  at::Tensor bias;
  for (int64_t i = 0; i < blocks; ++i) {
    if (i == 0 || !config_.shared_bias) {
      bias = relative_bias(i, ids.size(1)).unsqueeze(0);
      if (mask.defined()) {
        const at::Tensor absent = mask.eq(0).view({ids.size(0), 1, 1, -1}).to(bias.device());
        bias = bias.masked_fill(absent, lowest(bias.scalar_type()));
      }
    }
    x = run_block(blocks_.at(static_cast<size_t>(i)), x, bias);
  }
  return x;
}

at::Tensor T5Encoder::forward(const at::Tensor& ids, const at::Tensor& mask) const {
  return nn::rms_norm(after_blocks(ids, mask, config_.num_layers), norm_, config_.eps);
}

at::Tensor T5Encoder::encode(const at::Tensor& ids, const at::Tensor& mask) const {
  at::NoGradGuard no_grad;
  const auto lengths = valid_lengths(ids, mask, config_.name);
  at::Tensor out = at::zeros({ids.size(0), ids.size(1), config_.dim}, embedding_.options());
  for (int64_t i = 0; i < ids.size(0); ++i) {
    const int64_t length = lengths[static_cast<size_t>(i)];
    if (length > 0) {
      const at::Tensor own = ids.narrow(0, i, 1).narrow(1, 0, length);
      out[i].narrow(0, 0, length).copy_(forward(own, {})[0]);
    }
  }
  return out;
}

}  // namespace minwm::models
