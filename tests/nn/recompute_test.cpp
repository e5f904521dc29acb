#include "minwm/nn/recompute.h"

#include <gtest/gtest.h>

namespace minwm::nn {
namespace {

/// y = w x (+ bias where it is given), and x + w as a second result.
Tensors block(const at::Tensor& w, const Tensors& in) {
  const at::Tensor y = w * in[0];
  return {in[1].defined() ? y + in[1] : y, in[0] + w};
}

struct Gradients {
  at::Tensor w, x, bias;
};

Gradients run(bool again, bool with_bias, bool second_used) {
  const at::Tensor w = at::full({3}, 2.0F).requires_grad_(true),
                   x = at::arange(3, at::kFloat).requires_grad_(true),
                   bias = with_bias ? at::ones({3}).requires_grad_(true) : at::Tensor();
  const UnitFunction function = [&](const Tensors& in) { return block(w, in); };
  const Tensors out = again ? recompute(function, {x, bias}, {w}) : function({x, bias});
  at::Tensor loss = out[0].square().sum();
  if (second_used) {
    loss = loss + out[1].square().sum();
  }
  loss.backward();
  return {w.grad(), x.grad(), with_bias ? bias.grad() : at::Tensor()};
}

TEST(Recompute, GivesTheGradientsOfABlockThatKeepsEverything) {
  for (const bool with_bias : {false, true}) {
    for (const bool second_used : {false, true}) {
      const Gradients kept = run(false, with_bias, second_used),
                      again = run(true, with_bias, second_used);
      EXPECT_TRUE(at::equal(again.w, kept.w)) << with_bias << second_used;
      EXPECT_TRUE(at::equal(again.x, kept.x)) << with_bias << second_used;
      EXPECT_TRUE(!with_bias || at::equal(again.bias, kept.bias)) << second_used;
    }
  }
}

}  // namespace
}  // namespace minwm::nn
