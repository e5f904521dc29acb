// What a sharded model holds, moves, counts and refuses.

#include "minwm/parallel/sharded_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "tests/core/temporary_folder.h"
#include "tests/parallel/sharded_test.h"

namespace minwm::parallel {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::one_copy;
using testing::shard_toy;
using testing::toy_sample;
using testing::ToyModel;
using testing::ToySize;
using testing::world;

const comm::Mesh& mesh() {
  static const comm::Mesh made = one_copy();
  return made;
}

TEST(ShardedModel, ForwardIsBitForBitThatOfTheModelInOnePlace) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    ToyModel twin;
    twin.compute = compute;
    for (const bool trained : {true, false}) {
      const auto toy = shard_toy("toy", mesh(), {.compute = compute, .trained = trained});
      at::NoGradGuard no_grad;
      for (int micro = 0; micro < 2; ++micro) {
        const at::Tensor x = toy_sample(0, micro);
        EXPECT_TRUE(at::equal(toy.model->forward(x), twin.forward(x)));
      }
      toy.sharded->assert_idle();
    }
  }
}

TEST(ShardedModel, KeepsTheValuesOfAModelThatHasThem) {
  auto model = std::make_shared<ToyModel>();
  const ShardedModel sharded("toy", *model, model->units(), mesh(), {});
  for (const auto& item : ToyModel().named_parameters()) {
    EXPECT_TRUE(at::equal(sharded.gather_parameter(item.key()), item.value())) << item.key();
  }
}

TEST(ShardedModel, PiecesOfAllRanksAreTheWholeParameters) {
  const auto toy = shard_toy("toy", mesh(), {.compute = at::kBFloat16});
  const ToyModel twin;
  ASSERT_EQ(toy.sharded->pieces().size(), twin.parameters().size());
  size_t i = 0;
  for (const auto& item : twin.named_parameters()) {
    const Piece& piece = toy.sharded->pieces()[i++];
    EXPECT_EQ(piece.name, item.key());
    EXPECT_EQ(piece.shape, item.value().sizes().vec());
    EXPECT_EQ(piece.values.scalar_type(), at::kFloat);
    const double all =
        world().communicator()->all_reduce_sum(static_cast<double>(piece.values.numel()), "count");
    EXPECT_EQ(all, static_cast<double>(item.value().numel()));
    EXPECT_TRUE(at::equal(piece.values, item.value().detach().reshape(-1).narrow(
                                            0, piece.begin, piece.values.numel())));
  }
}

TEST(ShardedModel, FrozenMatricesAreKeptInTheComputeType) {
  const auto trained = shard_toy("toy", mesh(), {.compute = at::kBFloat16});
  const auto frozen = shard_toy("toy", mesh(), {.compute = at::kBFloat16, .trained = false});
  EXPECT_EQ(frozen.sharded->gather_parameter("blocks.0.in").scalar_type(), at::kBFloat16);
  EXPECT_EQ(frozen.sharded->gather_parameter("blocks.0.scale").scalar_type(), at::kFloat);
  // A trained matrix has 4 bytes for the master and 2 to send.
  EXPECT_LT(frozen.sharded->bytes().slices, trained.sharded->bytes().slices * 2 / 3);
}

TEST(ShardedModel, AnAverageHasMastersAndNoGradients) {
  const auto average =
      shard_toy("average", mesh(), {.compute = at::kBFloat16, .trained = false, .masters = true});
  EXPECT_TRUE(
      at::equal(average.sharded->gather_parameter("blocks.0.in"), ToyModel().blocks[0]->in));
  EXPECT_EQ(average.sharded->bytes().gradients, 0);
}

TEST(ShardedModel, RanksThatHoldNothingOfAUnitTakePart) {
  // Blocks so small that all of a parameter fits one rank.
  const ToySize tiny{.width = 2, .hidden = 1, .blocks = 2};
  auto twin = std::make_shared<ToyModel>(tiny);
  for (int rank = 0; rank < world().size(); ++rank) {
    twin->forward(toy_sample(rank, 0, 2)).square().mean().backward();
  }
  for (const bool recompute : {true, false}) {
    const auto toy =
        shard_toy("tiny", mesh(), {.compute = at::kFloat, .recompute = recompute}, tiny);
    toy.sharded->begin_step();
    toy.model->forward(toy_sample(world().rank(), 0, 2)).square().mean().backward();
    toy.sharded->end_backward();
    toy.sharded->finish_gradients();
    EXPECT_LE(testing::gradient_error(*toy.sharded, *twin), 1e-6);
  }
  if (world().size() == 4) {
    const auto toy = shard_toy("tiny", mesh(), {}, tiny);
    const auto& pieces = toy.sharded->pieces();
    EXPECT_TRUE(std::any_of(pieces.begin(), pieces.end(),
                            [](const Piece& piece) { return piece.values.numel() == 0; }));
  }
}

TEST(ShardedModel, GathersEachUnitTwiceAndReducesItOncePerStep) {
  const ToySize size;
  for (const bool recompute : {true, false}) {
    for (const auto compute : {at::kFloat, at::kBFloat16}) {
      const auto toy = shard_toy("toy", mesh(), {.compute = compute, .recompute = recompute});
      toy.sharded->begin_step();
      toy.model->forward(toy_sample(world().rank(), 0)).mean().backward();
      toy.sharded->end_backward();
      toy.sharded->finish_gradients();
      // In bfloat16 a unit's matrices and the rest travel apart.
      const int64_t buffers = size.blocks * (compute == at::kFloat ? 1 : 2);
      EXPECT_EQ(toy.sharded->calls().gathers, 2 * buffers + 1);
      EXPECT_EQ(toy.sharded->calls().reductions, buffers + 1);
    }
  }
}

TEST(ShardedModel, HoldsTheRootOneUnitAndThoseGatheredAhead) {
  const ToySize size{.width = 64, .hidden = 64, .blocks = 6};
  const int64_t ranks = world().size();
  const auto padded = [ranks](int64_t bytes) { return bytes + 4 * 16 * (ranks + 6); };
  const int64_t unit = padded(4 * (2 * 64 * 64 + 64 + 2 * 64 + 5));
  const int64_t root = padded(4 * (2 * 64 * 64 + 64));
  for (const bool recompute : {true, false}) {
    for (const int64_t prefetch : {0, 1, 2}) {
      const auto toy =
          shard_toy("toy", mesh(), {.recompute = recompute, .prefetch = prefetch}, size);
      toy.sharded->begin_step();
      toy.model->forward(toy_sample(world().rank(), 0, 64)).mean().backward();
      toy.sharded->end_backward();
      toy.sharded->finish_gradients();
      EXPECT_LE(toy.sharded->bytes().gathered_peak, root + (1 + prefetch) * unit);
      EXPECT_GT(toy.sharded->bytes().gathered_peak, 4 * 2 * 64 * 64 * (2 + prefetch));
    }
  }
}

TEST(ShardedModel, NewWeightsAreSeenByTheNextForward) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    const auto toy = shard_toy("toy", mesh(), {.compute = compute});
    ToyModel twin;
    twin.compute = compute;
    at::NoGradGuard no_grad;
    const at::Tensor x = toy_sample(0, 0);
    (void)toy.model->forward(x);
    for (const auto& piece : toy.sharded->pieces()) {
      piece.values.mul_(1.5);
    }
    toy.sharded->weights_changed();
    for (auto& parameter : twin.parameters()) {
      parameter.mul_(1.5);
    }
    EXPECT_TRUE(at::equal(toy.model->forward(x), twin.forward(x)));
  }
}

TEST(ShardedModel, AForwardThatStopsEarlyLeavesNothingGathered) {
  const auto toy = shard_toy("toy", mesh(), {});
  const auto identity = [](const nn::Tensors& in) { return in; };
  at::NoGradGuard no_grad;
  {
    const auto present = toy.sharded->begin();
    (void)toy.sharded->run(0, identity, {toy_sample(0, 0)});
    EXPECT_THAT(error_of([&] { toy.sharded->assert_idle(); }), HasSubstr("gathered"));
  }
  toy.sharded->assert_idle();
}

TEST(ShardedModel, NestedForwardsShareTheRoot) {
  const auto toy = shard_toy("toy", mesh(), {});
  const auto outer = toy.sharded->begin();  // recorded
  {
    at::NoGradGuard no_grad;
    (void)toy.model->forward(toy_sample(0, 0));
    (void)toy.model->forward(toy_sample(0, 1));
  }
  const ToyModel twin;
  EXPECT_TRUE(at::equal(toy.model->embed, twin.embed));
  toy.sharded->end_backward();
}

TEST(ShardedModel, AGraphWithoutABackwardIsNamed) {
  const auto toy = shard_toy("student", mesh(), {});
  toy.sharded->begin_step();
  (void)toy.model->forward(toy_sample(0, 0));
  EXPECT_EQ(error_of([&] { toy.sharded->finish_gradients(); }),
            "student: student root is still gathered");
  EXPECT_THAT(error_of([&] { toy.sharded->weights_changed(); }), HasSubstr("still gathered"));
  toy.sharded->end_backward();
  toy.sharded->finish_gradients();
}

TEST(ShardedModel, GradientsLeftUnreducedAreNamed) {
  const auto toy = shard_toy("student", mesh(), {.reduce_each = false});
  toy.sharded->begin_step();
  toy.model->forward(toy_sample(0, 0)).mean().backward();
  toy.sharded->end_backward();
  EXPECT_THAT(error_of([&] { toy.sharded->weights_changed(); }),
              HasSubstr("student.blocks.0 has gradients that were not reduced"));
  toy.sharded->finish_gradients();  // reduces what is left
}

TEST(ShardedModel, AnExceptionInAUnitLeavesTheModelUsable) {
  const auto toy = shard_toy("toy", mesh(), {});
  EXPECT_EQ(error_of([&] {
              const auto present = toy.sharded->begin();
              (void)toy.sharded->run(
                  0, [](const nn::Tensors&) -> nn::Tensors { fail("bad input"); }, {});
            }),
            "bad input");
  toy.sharded->end_backward();
  toy.sharded->begin_step();
  toy.model->forward(toy_sample(0, 0)).mean().backward();
  toy.sharded->end_backward();
  toy.sharded->finish_gradients();
}

TEST(ShardedModel, RefusesAParameterOfTwoUnits) {
  auto model = std::make_shared<ToyModel>();
  auto units = model->units();
  units.push_back(units.front());
  EXPECT_EQ(error_of([&] { ShardedModel("toy", *model, units, mesh(), {}); }),
            "toy: parameter 'in' of unit 3 also belongs to unit 0");
}

TEST(ShardedModel, RefusesUnitsOfAnotherModel) {
  ToyModel model;
  EXPECT_EQ(error_of([&] { ShardedModel("toy", model, ToyModel().units(), mesh(), {}); }),
            "toy: a unit has parameters that the model has not");
}

TEST(ShardedModel, RefusesWrongOptionsAndNames) {
  const auto toy = shard_toy("toy", mesh(), {});
  const auto make = [&](const ShardOptions& options) {
    ToyModel model;
    ShardedModel("toy", model, model.units(), mesh(), options);
  };
  EXPECT_EQ(error_of([&] { make({.prefetch = -1}); }),
            "toy: prefetch -1, expected 0 or more units");
  EXPECT_THAT(error_of([&] { make({.compute = at::kLong}); }),
              HasSubstr("compute type Long, expected float32 or bfloat16"));
  EXPECT_EQ(error_of([&] { (void)toy.sharded->gather_parameter("blocks.9.in"); }),
            "toy: there is no parameter 'blocks.9.in'");
  EXPECT_EQ(error_of([&] { (void)toy.sharded->run(3, nullptr, {}); }), "toy: unit 3 of 3");
  EXPECT_THAT(error_of([&] {
                toy.sharded->load([](const std::string&, int64_t, int64_t count) {
                  return at::zeros({count + 1});
                });
              }),
              HasSubstr("was read with shape ["));
}

TEST(ShardedModel, TheModuleOutlivesItsShards) {
  auto model = std::make_shared<ToyModel>();
  auto sharded =
      std::make_shared<ShardedModel>("toy", *model, model->units(), mesh(), ShardOptions{});
  sharded = nullptr;
  EXPECT_EQ(model->embed.sizes(), ToyModel().embed.sizes());
}

/// `steps` updates as AdamW makes them once its moments have settled: rate times the sign of the
/// gradient.
void train(const std::vector<at::Tensor>& weights, double rate, int steps) {
  for (int step = 0; step < steps; ++step) {
    for (const auto& weight : weights) {
      weight.sub_(rate);
    }
  }
}

TEST(ShardedModel, MastersKeepUpdatesThatTheComputeTypeWouldLose) {
  constexpr double kRate = 1e-8;
  constexpr int kSteps = 1000;
  const auto toy = shard_toy("toy", mesh(), {.compute = at::kBFloat16});
  toy.sharded->load(
      [](const std::string&, int64_t, int64_t count) { return at::linspace(0.01, 0.05, count); });
  std::vector<at::Tensor> masters, narrow;
  for (const auto& piece : toy.sharded->pieces()) {
    masters.push_back(piece.values);
    narrow.push_back(piece.values.to(at::kBFloat16));
  }
  std::vector<at::Tensor> before, narrow_before;
  for (size_t i = 0; i < masters.size(); ++i) {
    before.push_back(masters[i].clone());
    narrow_before.push_back(narrow[i].clone());
  }
  train(masters, kRate, kSteps);
  train(narrow, kRate, kSteps);
  for (size_t i = 0; i < masters.size(); ++i) {
    EXPECT_TRUE(at::equal(narrow[i], narrow_before[i]));
    // Each step is rounded to a multiple of the weight's last bit, 2^-28 at 0.05.
    const at::Tensor moved = (before[i] - masters[i]) / (kRate * kSteps);
    EXPECT_TRUE((moved > 0.7).all().item<bool>() && (moved < 1.3).all().item<bool>());
  }
}

}  // namespace
}  // namespace minwm::parallel
