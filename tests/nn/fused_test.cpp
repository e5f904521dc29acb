// The fused CPU kernels against the composite operators, which float64 tensors take: values and
// gradients.

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/random.h"
#include "minwm/nn/attention.h"
#include "minwm/nn/embedding.h"
#include "minwm/nn/heads.h"
#include "minwm/nn/norm.h"
#include "minwm/nn/pointwise.h"

namespace minwm::nn {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

at::Tensor numbers(at::IntArrayRef shape, uint64_t seed) {
  return random_normal(shape, {seed, "fused_test"});
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// Output and gradients of `function` with inputs of `type`, for the output gradient `weight`.
Tensors run(const Function& function, const Tensors& inputs, at::ScalarType type,
            const at::Tensor& weight) {
  Tensors leaves;
  for (const auto& x : inputs) {
    leaves.push_back(x.to(type).clone().requires_grad_());
  }
  const at::Tensor y = function(leaves);
  (y.to(at::kDouble) * weight.to(at::kDouble)).sum().backward();
  Tensors out{y.detach()};
  for (const auto& leaf : leaves) {
    out.push_back(leaf.grad());
  }
  return out;
}

void expect_equal_to_composite(const Function& function, const Tensors& inputs, double tolerance) {
  at::Tensor weight;
  {
    at::NoGradGuard no_grad;
    weight = numbers(function(inputs).sizes(), 99);
  }
  const auto fused = run(function, inputs, at::kFloat, weight);
  const auto composite = run(function, inputs, at::kDouble, weight);
  for (size_t i = 0; i < fused.size(); ++i) {
    ASSERT_EQ(fused[i].scalar_type(), at::kFloat);
    ASSERT_EQ(composite[i].scalar_type(), at::kDouble) << "the reference took the fused path";
    EXPECT_LT(distance(fused[i], composite[i]), tolerance)
        << (i == 0 ? "output" : "gradient of an input");
  }
}

/// Frame matrices and rotary tables follow the type of x.
at::Tensor like(const at::Tensor& constant, const at::Tensor& x) {
  return x.scalar_type() == at::kDouble
             ? constant.to(constant.is_complex() ? at::kComplexDouble : at::kDouble)
             : constant;
}

TEST(Fused, ModulatedNormEqualsComposite) {
  expect_equal_to_composite(
      [](const Tensors& in) {
        return modulated_norm(in[0], in[1], in[2], 1e-6, in[0].scalar_type());
      },
      {numbers({2, 3, 5, 37}, 1) * 3 + 1, numbers({2, 3, 37}, 2), numbers({2, 3, 37}, 3)}, 2e-5);
}

TEST(Fused, RmsNormEqualsItsFormula) {
  const at::Tensor x = numbers({700, 36}, 1), w = numbers({36}, 2), weight = numbers({700, 36}, 3);
  const auto formula = [](const Tensors& in) {
    return in[0] * at::rsqrt(in[0].square().mean(-1, true) + 1e-6) * in[1];
  };
  const auto fused = run([](const Tensors& in) { return rms_norm(in[0], in[1], 1e-6); }, {x, w},
                         at::kFloat, weight);
  const auto reference = run(formula, {x, w}, at::kDouble, weight);
  for (size_t i = 0; i < fused.size(); ++i) {
    EXPECT_LT(distance(fused[i], reference[i]), 5e-5);
  }
}

TEST(Fused, GatedAddEqualsComposite) {
  expect_equal_to_composite(
      [](const Tensors& in) { return gated_add(in[0], in[1], in[2]); },
      {numbers({2, 3, 5, 37}, 1), numbers({2, 3, 5, 37}, 2), numbers({2, 3, 37}, 3)}, 1e-5);
}

TEST(Fused, GeluEqualsComposite) {
  expect_equal_to_composite([](const Tensors& in) { return nn::gelu(in[0]); },
                            {numbers({1000}, 1) * 4}, 1e-5);
}

TEST(Fused, HeadTransformsEqualComposite) {
  const at::Tensor m = numbers({2, 3, 4, 4}, 7), table = rotary_table({0, 1, 5}, 2, 3, 20);
  const at::Tensor x = numbers({2, 18, 3, 20}, 1);
  expect_equal_to_composite(
      [&](const Tensors& in) { return split_heads(in[0], like(table, in[0]), like(m, in[0])); },
      {x}, 1e-5);
  expect_equal_to_composite(
      [&](const Tensors& in) { return split_heads(in[0], {}, like(m, in[0])); }, {x}, 1e-5);
  expect_equal_to_composite(
      [&](const Tensors& in) { return split_heads(in[0], like(table, in[0]), {}); }, {x}, 1e-5);
  expect_equal_to_composite([&](const Tensors& in) { return merge_heads(in[0], like(m, in[0])); },
                            {numbers({2, 18, 6, 20}, 2)}, 1e-5);
  expect_equal_to_composite([&](const Tensors& in) { return merge_heads(in[0], {}); }, {x}, 1e-5);
}

TEST(Fused, AttentionEqualsComposite) {
  expect_equal_to_composite(
      [](const Tensors& in) { return attend(in[0], in[1], in[2]); },
      {numbers({2, 17, 3, 8}, 1) * 2, numbers({2, 23, 3, 8}, 2) * 2, numbers({2, 23, 3, 8}, 3)},
      2e-5);
}

TEST(Fused, Bfloat16StaysWithinItsRounding) {
  const at::Tensor x = numbers({2, 3, 4, 64}, 1), w = numbers({64}, 2);
  const at::Tensor half = x.to(at::kBFloat16);
  EXPECT_LT(distance(rms_norm(half, w, 1e-6), rms_norm(half.to(at::kFloat), w, 1e-6)), 0.06);
  EXPECT_LT(distance(nn::gelu(half), nn::gelu(half.to(at::kFloat))), 0.02);
  const at::Tensor q = numbers({2, 16, 4, 16}, 3).to(at::kBFloat16);
  EXPECT_LT(distance(attend(q, q, q), attend(q.to(at::kFloat), q.to(at::kFloat), q.to(at::kFloat))),
            0.05);
}

TEST(Fused, ResultsDoNotDependOnTheNumberOfThreads) {
  const at::Tensor x = numbers({4, 12, 16, 128}, 1), w = numbers({128}, 2),
                   weight = numbers({4, 12, 16, 128}, 3);
  const Function both = [](const Tensors& in) { return nn::gelu(rms_norm(in[0], in[1], 1e-6)); };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run(both, {x, w}, at::kFloat, weight);
  at::set_num_threads(2);
  const auto two = run(both, {x, w}, at::kFloat, weight);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(at::equal(one[i], two[i]));
  }
}

}  // namespace
}  // namespace minwm::nn
