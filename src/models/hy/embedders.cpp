#include "minwm/models/hy/embedders.h"

#include <array>
#include <cmath>

#include "minwm/nn/attention.h"
#include "minwm/nn/norm.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

using Specs = std::vector<nn::NamedLinearsImpl::Spec>;

constexpr int64_t kSinusoid = 256;
constexpr double kEps = 1e-6, kMapperEps = 1e-5;

/// A module that only owns parameters under a published prefix.
struct Named : torch::nn::Module {};

/// exp(-ln(10000) i / 128) in float32 as the reference made it, the same on every machine:
/// libraries differ in the last bit of an exponential, which at t = 1000 is 3e-5 of an angle.
at::Tensor sinusoid_frequencies() {
  constexpr int64_t kHalf = kSinusoid / 2;
  // The only two entries where the reference's exponential is not the nearest float32.
  constexpr std::array<int64_t, 2> kRoundedUp = {13, 44};
  const auto log_period = static_cast<float>(std::log(10000.0));
  std::vector<float> frequencies;
  for (int64_t i = 0; i < kHalf; ++i) {
    const float exponent = -log_period * static_cast<float>(i) / static_cast<float>(kHalf);
    frequencies.push_back(static_cast<float>(std::exp(static_cast<double>(exponent))));
  }
  for (const int64_t i : kRoundedUp) {
    float& frequency = frequencies[static_cast<size_t>(i)];
    frequency = std::nextafter(frequency, 1.f);
  }
  return at::tensor(frequencies);
}

}  // namespace

HyTimeEmbedderImpl::HyTimeEmbedderImpl(int64_t width) {
  mlp_ =
      register_module("mlp", nn::NamedLinears(Specs{{"0", kSinusoid, width}, {"2", width, width}}));
}

at::Tensor hy_sinusoid(const at::Tensor& t) {
  // In float32 as the reference has it: what the weights were trained on.
  const at::Tensor angles = t.to(at::kFloat).unsqueeze(-1) * sinusoid_frequencies().to(t.device());
  return at::cat({angles.cos(), angles.sin()}, -1);
}

at::Tensor HyTimeEmbedderImpl::forward(const at::Tensor& t) const {
  const auto& mlp = *mlp_;
  const at::Tensor hidden = at::silu(nn::linear(hy_sinusoid(t), mlp[0], at::kFloat));
  return nn::linear(hidden, mlp[1], at::kFloat);
}

HyTokenRefinerImpl::Block::Block(const HyConfig& config) {
  const int64_t d = config.hidden_size, wide = 4 * d;  // its ratio is not the model's
  norm1 = register_module("norm1", nn::AffineLayerNorm(d, kEps));
  qkv = register_module("self_attn_qkv", nn::Linear(d, 3 * d));
  proj = register_module("self_attn_proj", nn::Linear(d, d));
  norm2 = register_module("norm2", nn::AffineLayerNorm(d, kEps));
  mlp = register_module("mlp", nn::NamedLinears(Specs{{"fc1", d, wide}, {"fc2", wide, d}}));
  gates = register_module("adaLN_modulation", nn::NamedLinears(Specs{{"1", d, 2 * d}}));
}

HyTokenRefinerImpl::HyTokenRefinerImpl(const HyConfig& config) : heads_(config.heads_num) {
  const int64_t d = config.hidden_size, in = config.text_states_dim;
  input_embedder_ = register_module("input_embedder", nn::Linear(in, d));
  t_embedder_ = register_module("t_embedder", HyTimeEmbedder(d));
  c_embedder_ = register_module("c_embedder",
                                nn::NamedLinears(Specs{{"linear_1", in, d}, {"linear_2", d, d}}));
  const auto refiner = register_module("individual_token_refiner", std::make_shared<Named>());
  const auto list = refiner->register_module("blocks", torch::nn::ModuleList());
  for (int i = 0; i < 2; ++i) {
    blocks_.push_back(std::make_shared<Block>(config));
    list->push_back(blocks_.back());
  }
}

at::Tensor HyTokenRefinerImpl::refine(at::Tensor y, const at::Tensor& c,
                                      at::ScalarType compute) const {
  for (const auto& block : blocks_) {
    const auto gates = nn::linear(at::silu(c), (*block->gates)[0], compute)
                           .to(at::kFloat)
                           .unsqueeze(1)
                           .chunk(2, -1);
    const auto rows = nn::linear(block->norm1->forward(y), block->qkv, compute)
                          .unflatten(2, {3, heads_, -1})
                          .unbind(2);
    const at::Tensor attended = nn::attend(rows[0], rows[1], rows[2]).flatten(2);
    y = y + gates[0] * nn::linear(attended, block->proj, compute);
    const at::Tensor hidden =
        at::silu(nn::linear(block->norm2->forward(y), (*block->mlp)[0], compute));
    y = y + gates[1] * nn::linear(hidden, (*block->mlp)[1], compute);
  }
  return y;
}

at::Tensor HyTokenRefinerImpl::forward(const at::Tensor& x, const at::Tensor& t,
                                       const at::Tensor& mask, at::ScalarType compute) const {
  const auto& c_embedder = *c_embedder_;
  const at::Tensor counts = mask.to(at::kFloat).unsqueeze(2);
  const at::Tensor mean = (x * counts).sum(1) / counts.sum(1);
  const at::Tensor c =
      t_embedder_->forward(t) +
      nn::linear(at::silu(nn::linear(mean, c_embedder[0], compute)), c_embedder[1], compute)
          .to(at::kFloat);
  const at::Tensor y = nn::linear(x, input_embedder_, compute).to(at::kFloat);
  // Rows that do not count see nobody and are seen by nobody: only the others run, samples with the
  // same ones together. Row 0 takes part in any case.
  at::Tensor seen = mask.to(at::kCPU).to(at::kBool).clone();
  seen.select(1, 0).fill_(true);
  std::vector<at::Tensor> parts;
  for (int64_t first = 0, end = 0; first < x.size(0); first = end) {
    for (end = first + 1; end < x.size(0) && at::equal(seen[end], seen[first]); ++end) {
    }
    const at::Tensor rows = seen[first].nonzero().squeeze(1).to(x.device());
    const at::Tensor own = y.slice(0, first, end), vector = c.slice(0, first, end);
    parts.push_back(rows.size(0) == x.size(1)
                        ? refine(own, vector, compute)
                        : at::zeros_like(own).index_copy(
                              1, rows, refine(own.index_select(1, rows), vector, compute)));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

HyByt5MapperImpl::HyByt5MapperImpl(const HyConfig& config) {
  const auto& dims = config.byt5_dims;
  layernorm_ = register_module("layernorm", nn::AffineLayerNorm(dims.in, kMapperEps));
  fc1_ = register_module("fc1", nn::Linear(dims.in, dims.hidden));
  fc2_ = register_module("fc2", nn::Linear(dims.hidden, dims.mid));
  fc3_ = register_module("fc3", nn::Linear(dims.mid, config.hidden_size));
}

at::Tensor HyByt5MapperImpl::forward(const at::Tensor& x, at::ScalarType compute) const {
  const at::Tensor hidden = at::gelu(nn::linear(layernorm_->forward(x), fc1_, compute));
  return nn::linear(at::gelu(nn::linear(hidden, fc2_, compute)), fc3_, compute).to(at::kFloat);
}

HyVisionMapperImpl::HyVisionMapperImpl(const HyConfig& config) {
  const int64_t in = config.vision_states_dim, d = config.hidden_size;
  const auto proj = register_module("proj", std::make_shared<Named>());
  before_ = proj->register_module("0", nn::AffineLayerNorm(in, kMapperEps));
  in_ = proj->register_module("1", nn::Linear(in, in));
  out_ = proj->register_module("3", nn::Linear(in, d));
  after_ = proj->register_module("4", nn::AffineLayerNorm(d, kMapperEps));
}

at::Tensor HyVisionMapperImpl::forward(const at::Tensor& x, at::ScalarType compute) const {
  const at::Tensor hidden = at::gelu(nn::linear(before_->forward(x), in_, compute));
  return after_->forward(nn::linear(hidden, out_, compute).to(at::kFloat));
}

HyPatchEmbedderImpl::HyPatchEmbedderImpl(const HyConfig& config) {
  const auto& patch = config.patch_size;
  const int64_t d = config.hidden_size;
  const auto proj = register_module("proj", std::make_shared<Named>());
  weight = proj->register_parameter(
      "weight", nn::make_parameter({d, 2 * config.in_channels + 1, patch[0], patch[1], patch[2]}));
  bias = proj->register_parameter("bias", nn::make_parameter({d}));
}

at::Tensor HyPatchEmbedderImpl::forward(const at::Tensor& patches) const {
  return at::linear(patches, weight.flatten(1), bias);
}

HyFinalLayerImpl::HyFinalLayerImpl(const HyConfig& config) {
  const auto& patch = config.patch_size;
  const int64_t d = config.hidden_size;
  linear_ = register_module("linear",
                            nn::Linear(d, config.out_channels * patch[0] * patch[1] * patch[2]));
  modulation_ = register_module("adaLN_modulation", nn::NamedLinears(Specs{{"1", d, 2 * d}}));
}

at::Tensor HyFinalLayerImpl::forward(const at::Tensor& x, const at::Tensor& vec,
                                     at::ScalarType compute) const {
  const auto m = nn::linear(at::silu(vec), (*modulation_)[0], compute).to(at::kFloat).chunk(2, -1);
  return nn::linear(nn::modulated_norm(x, m[0], m[1], kEps, compute), linear_, compute);
}

at::Tensor hy_patches(const at::Tensor& x, int64_t patch_height, int64_t patch_width) {
  const int64_t rows = x.size(3) / patch_height, columns = x.size(4) / patch_width;
  return x.reshape({x.size(0), x.size(1), x.size(2), rows, patch_height, columns, patch_width})
      .permute({0, 1, 3, 5, 2, 4, 6})
      .reshape({x.size(0), x.size(1), rows * columns, -1});
}

at::Tensor hy_unpatch(const at::Tensor& patches, int64_t rows, int64_t columns,
                      int64_t patch_height, int64_t patch_width) {
  const int64_t batch = patches.size(0), frames = patches.size(1);
  return patches.view({batch, frames, rows, columns, -1, patch_height, patch_width})
      .permute({0, 1, 4, 2, 5, 3, 6})
      .reshape({batch, frames, -1, rows * patch_height, columns * patch_width});
}

at::Tensor hy_image_channels(const at::Tensor& first_latent, int64_t frames) {
  const at::Tensor marked = at::cat({first_latent, at::ones_like(first_latent.narrow(2, 0, 1))}, 2);
  return at::constant_pad_nd(marked, {0, 0, 0, 0, 0, 0, 0, frames - 1});
}

}  // namespace minwm::models
