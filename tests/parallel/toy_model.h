#pragma once
// A small model of residual blocks that runs its units as a backbone does, and its unsharded twin.

#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "minwm/core/random.h"
#include "minwm/nn/parameters.h"
#include "minwm/nn/unit_runner.h"

namespace minwm::testing {

struct ToySize {
  int64_t width = 12, hidden = 20, blocks = 3;
};

/// x, c → two outputs; one parameter gets no gradient.
class ToyBlock : public torch::nn::Module {
 public:
  explicit ToyBlock(const ToySize& size)
      : in(register_parameter("in", nn::make_parameter({size.hidden, size.width}))),
        out(register_parameter("out", nn::make_parameter({size.width, size.hidden}))),
        bias(register_parameter("bias", nn::make_parameter({size.hidden}))),
        scale(register_parameter("scale", nn::make_parameter({1, 2, size.width}))),
        unused(register_parameter("unused", nn::make_parameter({5}))) {}

  nn::Tensors run(const nn::Tensors& inputs, at::ScalarType compute) const {
    const at::Tensor &x = inputs[0], c = inputs[1];
    const at::Tensor inner = at::linear((x * (1 + scale.select(1, 0)) + c).to(compute),
                                        in.to(compute), bias.to(compute));
    const at::Tensor change = at::linear(at::gelu(inner), out.to(compute)).to(at::kFloat);
    return {x + change, c * (1 + scale.select(1, 1))};
  }

  at::Tensor in, out, bias, scale, unused;
};

class ToyModel : public torch::nn::Module {
 public:
  explicit ToyModel(const ToySize& size = {})
      : embed(register_parameter("embed", nn::make_parameter({size.width, size.width}))),
        condition(register_parameter("condition", nn::make_parameter({size.width}))) {
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < size.blocks; ++i) {
      blocks.push_back(std::make_shared<ToyBlock>(size));
      list->push_back(blocks.back());
    }
    register_module("blocks", list);
    head = register_parameter("head", nn::make_parameter({size.width, size.width}));
    runner = std::make_shared<nn::LocalUnits>(units(), false);
    if (!nn::HollowParameters::active()) {
      at::NoGradGuard no_grad;
      for (auto& item : named_parameters()) {
        item.value().copy_(initial(item.key(), item.value().sizes()));
      }
    }
  }

  static at::Tensor initial(const std::string& name, at::IntArrayRef shape) {
    return random_normal(shape, {.seed = 1, .purpose = name}) * 0.2;
  }

  /// x [B, width] → [B, width].
  at::Tensor forward(const at::Tensor& x) const {
    const auto present = runner->begin();
    nn::Tensors at{at::linear(x, embed), at::tanh(condition).expand_as(x), at::Tensor()};
    for (size_t i = 0; i < blocks.size(); ++i) {
      auto next = runner->run(
          i,
          [block = blocks[i], type = compute](const nn::Tensors& in) {
            return block->run(in, type);
          },
          at);
      at = {next[0], next[1], at::Tensor()};
    }
    // The last block's second output is left out.
    return at::linear(at[0], head);
  }

  std::vector<std::shared_ptr<torch::nn::Module>> units() const {
    return {blocks.begin(), blocks.end()};
  }

  at::Tensor embed, condition, head;
  std::vector<std::shared_ptr<ToyBlock>> blocks;
  std::shared_ptr<nn::UnitRunner> runner;
  at::ScalarType compute = at::kFloat;
};

inline std::shared_ptr<ToyModel> hollow_toy(const ToySize& size = {}) {
  const nn::HollowParameters hollow;
  return std::make_shared<ToyModel>(size);
}

/// What rank `rank` trains on in micro-batch `micro`: [4, width].
inline at::Tensor toy_sample(int rank, int micro, int64_t width = 12) {
  return random_normal({4, width}, {.seed = 2,
                                    .purpose = "sample",
                                    .step = static_cast<uint64_t>(micro),
                                    .sample = static_cast<uint64_t>(rank)});
}

}  // namespace minwm::testing
