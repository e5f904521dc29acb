// Attention over context ranks against dense masked attention on one, in float64.

#include <cmath>

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "context_meshes.h"
#include "minwm/core/random.h"
#include "minwm/nn/attention.h"
#include "minwm/nn/frame_plan.h"

namespace minwm::parallel {
namespace {

using nn::FramePlan;
using nn::FrameRows;
using testing::contexts;
using testing::NamedContext;
using testing::own_rows;

constexpr int64_t kBatch = 2, kDim = 8;

/// Which keys a query sees, bool [rows of the asking frames, rows of all].
at::Tensor mask_of(const FramePlan& plan, const FrameRows& tokens) {
  const int64_t first = plan.first_query(), before = tokens.before(first);
  const int64_t all = tokens.before(plan.frames());
  at::Tensor mask = at::zeros({all - before, all}, at::kBool);
  for (const auto& chunk : plan.chunks) {
    const int64_t begin = tokens.before(first + chunk.frames.begin) - before,
                  end = tokens.before(first + chunk.frames.end) - before;
    for (const auto& range : chunk.sees) {
      mask.slice(0, begin, end)
          .slice(1, tokens.before(range.begin), tokens.before(range.end))
          .fill_(true);
    }
  }
  return mask;
}

struct Result {
  at::Tensor out, dq, dk, dv;
};

struct Case {
  FramePlan plan;
  FrameRows tokens;
  int64_t heads;
  at::ScalarType type = at::kFloat;
  int64_t asking() const { return plan.frames() - plan.first_query(); }
  at::Tensor draw(const char* purpose, bool query) const {
    const int64_t first = query ? tokens.before(plan.first_query()) : 0;
    return random_normal({kBatch, tokens.before(plan.frames()) - first, heads, kDim}, {1, purpose})
        .to(type);
  }
};

Result dense(const Case& c) {
  const auto leaf = [&](const char* purpose, bool query) {
    return c.draw(purpose, query).to(at::kDouble).requires_grad_(true);
  };
  const at::Tensor q = leaf("q", true), k = leaf("k", false), v = leaf("v", false);
  const at::Tensor scores =
      at::matmul(q.transpose(1, 2), k.permute({0, 2, 3, 1})) / std::sqrt(double{kDim});
  const at::Tensor weights =
      scores.masked_fill(mask_of(c.plan, c.tokens).logical_not(), -INFINITY).softmax(-1);
  const at::Tensor out = at::matmul(weights, v.transpose(1, 2)).transpose(1, 2);
  out.backward(c.draw("dout", true).to(at::kDouble));
  return {out.detach(), q.grad(), k.grad(), v.grad()};
}

/// Largest difference of results and gradients, relative to the largest entry of each.
double difference(const NamedContext& ranks, const Case& c, const Result& reference) {
  const Context& context = *ranks.context;
  const FrameRows asking = c.tokens.from(c.plan.first_query());
  const auto own = [&](const at::Tensor& x, bool query) {
    return own_rows(context, x, query ? c.asking() : c.plan.frames(), query ? asking : c.tokens);
  };
  const auto leaf = [&](const char* purpose, bool query) {
    return own(c.draw(purpose, query), query).detach().requires_grad_(true);
  };
  const at::Tensor q = leaf("q", true), k = leaf("k", false), v = leaf("v", false);
  const at::Tensor qh = context.to_heads({q}, c.asking(), asking).front();
  const auto kv = context.to_heads({k, v}, c.plan.frames(), c.tokens);
  const at::Tensor out = context.to_rows(context.attend(qh, kv[0], kv[1], c.plan, c.tokens),
                                         c.asking(), asking, c.heads, 1);
  out.backward(own(c.draw("dout", true), true));
  const auto far = [&](const at::Tensor& ours, const at::Tensor& whole, bool query) {
    return testing::distance(ranks, ours.to(at::kDouble), own(whole, query), whole);
  };
  return std::max({far(out.detach(), reference.out, true), far(q.grad(), reference.dq, true),
                   far(k.grad(), reference.dk, false), far(v.grad(), reference.dv, false)});
}

struct NamedPlan {
  const char* name;
  FramePlan plan;
};

std::vector<NamedPlan> plans() {
  // Two frames after a cache of three.
  const FramePlan cached{{{{0, 2}, {{0, 5}}}}, {0, 1, 2, 3, 4}};
  return {{"bidirectional", nn::bidirectional_plan(4)},
          {"block-causal", nn::block_causal_plan(4, 2)},
          {"window", nn::block_causal_plan(5, 2, 3, true)},
          {"teacher forcing", nn::teacher_forcing_plan(4, 2)},
          {"noisy queries alone", nn::queries_from(nn::teacher_forcing_plan(4, 2, false), 2)},
          {"after a cache", cached}};
}

/// Every plan, row count and number of heads on every mesh; prints the worst per mesh.
void expect_close(at::ScalarType type, double tolerance) {
  std::vector<double> worst(contexts().size(), 0);
  for (const auto& [name, plan] : plans()) {
    SCOPED_TRACE(name);
    for (const int64_t tokens : {16, 13, 7}) {
      for (const int64_t heads : {3, 4, 5}) {
        const Case c{plan, tokens, heads, type};
        const Result reference = dense(c);
        for (size_t i = 0; i < contexts().size(); ++i) {
          const auto& ranks = contexts()[i];
          if (heads >= ranks.mesh.ulysses->size()) {
            const double found = difference(ranks, c, reference);
            EXPECT_LE(found, tolerance) << ranks.name << ", " << tokens << " rows, " << heads;
            worst[i] = std::max(worst[i], found);
          }
        }
      }
    }
  }
  for (size_t i = 0; i < worst.size(); ++i) {
    ::testing::Test::RecordProperty(contexts()[i].name, std::to_string(worst[i]));
    if (minwm::testing::world().rank() == 0) {
      std::printf("  %s: %.1e of max\n", contexts()[i].name.c_str(), worst[i]);
    }
  }
}

TEST(ContextAttention, EqualsDenseMaskedAttentionOnEveryMesh) {
  expect_close(at::kFloat, 2e-6);
}

TEST(ContextAttention, RoundsLikeBfloat16AndNoWorse) {
  expect_close(at::kBFloat16, 1.5e-2);  // one rank's own rounding is 1.1e-2
}

TEST(ContextAttention, WithoutARingIsBitForBitThatOfOneRank) {
  for (const auto& ranks : contexts()) {
    if (ranks.mesh.ring->size() > 1) {
      continue;
    }
    const Case c{nn::teacher_forcing_plan(4, 2), 13, 5};
    const at::Tensor q = c.draw("q", true), k = c.draw("k", false), v = c.draw("v", false);
    const auto own = [&](const at::Tensor& x) { return own_rows(*ranks.context, x, 8, 13); };
    const auto held = ranks.context->to_heads({own(q), own(k), own(v)}, 8, 13);
    const at::Tensor out = ranks.context->to_rows(
        ranks.context->attend(held[0], held[1], held[2], c.plan, 13), 8, 13, 5, 1);
    EXPECT_TRUE(at::equal(out, own(nn::attend(q, k, v, c.plan, 13))));
  }
}

TEST(ContextAttention, FramesWithFewerRowsThanRanksAreNoSpecialCase) {
  const Case c{nn::block_causal_plan(4, 1), 3, 4};
  const Result reference = dense(c);
  for (const auto& ranks : contexts()) {
    EXPECT_LE(difference(ranks, c, reference), 2e-6) << ranks.name;
  }
}

// Joint attention of image tokens, split over ranks, and of text rows that every rank computes: two
// layers, each with weights for both streams (spec parallel 4.4, rule 4).
constexpr int64_t kHeads = 5, kImage = 53, kText = 6, kWidth = kHeads * 4;

struct Stream {
  at::Tensor in, out;
};
struct Layer {
  Stream image, text;
};

std::vector<Layer> joint_layers() {
  std::vector<Layer> layers;
  for (int layer = 0; layer < 2; ++layer) {
    const auto weight = [&](const std::string& name, int64_t columns) {
      return (random_normal({columns, kWidth}, {1, name + std::to_string(layer)}) * 0.3)
          .requires_grad_(true);
    };
    layers.push_back({{weight("image.in", 3 * kWidth), weight("image.out", kWidth)},
                      {weight("text.in", 3 * kWidth), weight("text.out", kWidth)}});
  }
  return layers;
}

/// image: this rank's rows; text: all of it. Returns the image.
at::Tensor joint_attention(const Context& context, const std::vector<Layer>& layers,
                           at::Tensor image, at::Tensor text) {
  const FrameRows tokens = std::vector<int64_t>{kImage, kText};
  for (const auto& layer : layers) {
    const auto project = [&](const at::Tensor& x, const at::Tensor& weight) {
      return at::linear(x, weight).view({x.size(0), x.size(1), 3, kHeads, -1}).unbind(2);
    };
    const auto of_image = project(image, layer.image.in), of_text = project(text, layer.text.in);
    std::vector<at::Tensor> rows;
    for (size_t i = 0; i < 3; ++i) {
      rows.push_back(at::cat({of_image[i], context.split(of_text[i], 1)}, 1));
    }
    const auto held = context.to_heads(rows, 2, tokens);
    const at::Tensor out =
        context
            .to_rows(context.attend(held[0], held[1], held[2], nn::bidirectional_plan(2), tokens),
                     2, tokens, kHeads, 1)
            .flatten(2);
    image = image + at::linear(out.narrow(1, 0, image.size(1)), layer.image.out);
    text = text + at::linear(context.join(out.slice(1, image.size(1)), 1, kText), layer.text.out);
  }
  return image;
}

/// Loss and, summed over ranks, the gradients of all weights and of the image.
std::vector<at::Tensor> joint_gradients(const NamedContext* ranks) {
  const Context alone;
  const Context& context = ranks != nullptr ? *ranks->context : alone;
  const auto layers = joint_layers();
  const at::Tensor image = random_normal({2, kImage, kWidth}, {1, "image"}).requires_grad_(true);
  const at::Tensor flow =
      context.gather(joint_attention(context, layers, context.scatter(image, 1),
                                     random_normal({2, kText, kWidth}, {1, "text"})),
                     1, kImage);
  const at::Tensor loss = (flow - random_normal(flow.sizes(), {1, "target"})).square().mean();
  loss.backward();
  std::vector<at::Tensor> found{loss.detach(), image.grad()};
  for (const auto& layer : layers) {
    for (const auto& weight : {layer.image.in, layer.image.out, layer.text.in, layer.text.out}) {
      // The text of the last layer is not read.
      const at::Tensor gradient = weight.grad().defined() ? weight.grad() : at::zeros_like(weight);
      found.push_back(ranks != nullptr ? testing::summed(*ranks, gradient) : gradient);
    }
  }
  return found;
}

TEST(ContextAttention, JointAttentionWithReplicatedTextHasTheGradientsOfOneRank) {
  const auto reference = joint_gradients(nullptr);
  for (const auto& ranks : contexts()) {
    const auto ours = joint_gradients(&ranks);
    double worst = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      if (reference[i].abs().max().item<double>() == 0) {
        EXPECT_EQ(ours[i].abs().max().item<double>(), 0);
        continue;
      }
      worst = std::max(worst, testing::distance(ranks, ours[i], reference[i], reference[i]));
    }
    EXPECT_LE(worst, 1e-5) << ranks.name;  // two layers, weights that add up many rows
    if (minwm::testing::world().rank() == 0) {
      std::printf("  %s: %.1e of max\n", ranks.name.c_str(), worst);
    }
  }
}

}  // namespace
}  // namespace minwm::parallel
