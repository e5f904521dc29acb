// Gradients of a model whose weights are spread over ranks are those of the model in one place.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/parallel/sharded_model.h"
#include "tests/parallel/sharded_test.h"

namespace minwm::parallel {
namespace {

using testing::gradient_error;
using testing::shard_toy;
using testing::toy_sample;
using testing::ToyModel;
using testing::world;

constexpr int kMicroBatches = 2;

at::Tensor loss_of(const at::Tensor& prediction) {
  return (prediction - 0.3).square().mean();
}

/// The gradients of all ranks' samples in one place.
std::shared_ptr<ToyModel> unsharded(at::ScalarType compute, int calls = 1) {
  auto model = std::make_shared<ToyModel>();
  model->compute = compute;
  for (int micro = 0; micro < kMicroBatches; ++micro) {
    for (int rank = 0; rank < world().size(); ++rank) {
      at::Tensor x = toy_sample(rank, micro);
      for (int call = 0; call < calls; ++call) {
        x = model->forward(x);
      }
      loss_of(x).backward();
    }
  }
  return model;
}

/// One step of the sharded model on this rank's samples.
void train_step(const testing::ShardedToy& toy, int calls = 1) {
  toy.sharded->begin_step();
  for (int micro = 0; micro < kMicroBatches; ++micro) {
    at::Tensor x = toy_sample(world().rank(), micro);
    for (int call = 0; call < calls; ++call) {
      x = toy.model->forward(x);
    }
    if (micro + 1 == kMicroBatches) {
      toy.sharded->reduce_in_backward();
    }
    loss_of(x).backward();
    toy.sharded->end_backward();
  }
  toy.sharded->finish_gradients();
}

/// Every way of running a step.
std::vector<ShardOptions> ways(at::ScalarType compute) {
  std::vector<ShardOptions> all;
  for (const bool recompute : {true, false}) {
    for (const int64_t prefetch : {0, 1, 2}) {
      for (const bool reduce_each : {true, false}) {
        all.push_back({.compute = compute,
                       .recompute = recompute,
                       .prefetch = prefetch,
                       .reduce_each = reduce_each});
      }
    }
  }
  return all;
}

std::string text_of(const ShardOptions& way, const comm::MeshOptions& mesh) {
  return fmt::format("mesh {}x{}x{}, recompute {}, prefetch {}, reduce each {}", mesh.replicate,
                     mesh.shard, mesh.context, way.recompute, way.prefetch, way.reduce_each);
}

TEST(ShardedGradients, AreThoseOfTheModelInOnePlace) {
  const auto twin = unsharded(at::kFloat);
  for (const auto& mesh_options : testing::meshes()) {
    const comm::Mesh mesh = comm::make_mesh(world().communicator(), mesh_options);
    for (const auto& way : ways(at::kFloat)) {
      SCOPED_TRACE(text_of(way, mesh_options));
      const auto toy = shard_toy("toy", mesh, way);
      train_step(toy);
      EXPECT_LE(gradient_error(*toy.sharded, *twin), 1e-6);
      train_step(toy);  // a second step starts from zero
      EXPECT_LE(gradient_error(*toy.sharded, *twin), 1e-6);
      EXPECT_TRUE(toy.sharded->touched("blocks.1.in"));
      EXPECT_TRUE(toy.sharded->touched("embed"));
      EXPECT_FALSE(toy.sharded->touched("blocks.1.unused"));
    }
  }
}

TEST(ShardedGradients, InBfloat16DifferFromOnePlaceByTheOrderOfSumsOnly) {
  const auto twin = unsharded(at::kBFloat16);
  for (const auto& mesh_options : testing::meshes()) {
    const comm::Mesh mesh = comm::make_mesh(world().communicator(), mesh_options);
    for (const auto& way : ways(at::kBFloat16)) {
      SCOPED_TRACE(text_of(way, mesh_options));
      const auto toy = shard_toy("toy", mesh, way);
      train_step(toy);
      EXPECT_LE(gradient_error(*toy.sharded, *twin), 1e-6);
    }
  }
}

TEST(ShardedGradients, OfSeveralCallsInOneGraphAddUp) {
  constexpr int kCalls = 3;
  const auto twin = unsharded(at::kFloat, kCalls);
  const comm::Mesh mesh = testing::one_copy();
  for (const auto& way : ways(at::kFloat)) {
    SCOPED_TRACE(text_of(way, testing::meshes().front()));
    const auto toy = shard_toy("toy", mesh, way);
    train_step(toy, kCalls);
    EXPECT_LE(gradient_error(*toy.sharded, *twin), 2e-6);
    const auto& blocks = toy.model->blocks;
    const auto units = static_cast<int64_t>(blocks.size());
    // Calls reduce one by one only where their gradients would have to be kept otherwise.
    const int64_t each = way.recompute ? kCalls * units : units;
    EXPECT_EQ(toy.sharded->calls().reductions,
              way.reduce_each ? kMicroBatches * (each + 1) : units + 1);
  }
}

TEST(ShardedGradients, PassThroughAFrozenModel) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    ToyModel twin;
    twin.compute = compute;
    for (auto& parameter : twin.parameters()) {
      parameter.requires_grad_(false);
    }
    at::Tensor expected = toy_sample(world().rank(), 0).requires_grad_(true);
    loss_of(twin.forward(expected)).backward();
    for (auto way : ways(compute)) {
      way.trained = false;
      const auto toy = shard_toy("teacher", testing::one_copy(), way);
      at::Tensor x = toy_sample(world().rank(), 0).requires_grad_(true);
      loss_of(toy.model->forward(x)).backward();
      toy.sharded->end_backward();
      toy.sharded->assert_idle();
      EXPECT_TRUE(at::equal(x.grad(), expected.grad()));
      EXPECT_EQ(toy.sharded->bytes().gradients, 0);
      EXPECT_EQ(toy.sharded->calls().reductions, 0);
      EXPECT_FALSE(toy.sharded->pieces().front().gradient.defined());
    }
  }
}

TEST(ShardedGradients, StartWhereNoInputWantsOne) {
  // Only the blocks are trained: nothing in front of them asks autograd to come back.
  const auto freeze_front = [](ToyModel& model) {
    model.embed.requires_grad_(false);
    model.condition.requires_grad_(false);
  };
  const auto twin = std::make_shared<ToyModel>();
  freeze_front(*twin);
  for (int rank = 0; rank < world().size(); ++rank) {
    loss_of(twin->forward(toy_sample(rank, 0))).backward();
  }
  for (const bool recompute : {true, false}) {
    auto own = std::make_shared<ToyModel>();
    freeze_front(*own);
    const auto sharded = std::make_shared<ShardedModel>(
        "toy", *own, own->units(), testing::one_copy(), ShardOptions{.recompute = recompute});
    own->runner = sharded;
    sharded->begin_step();
    loss_of(own->forward(toy_sample(world().rank(), 0))).backward();
    sharded->end_backward();
    sharded->finish_gradients();
    EXPECT_LE(gradient_error(*sharded, *twin), 1e-6);
    EXPECT_FALSE(sharded->touched("embed"));
  }
}

/// A student's, a critic's and a frozen teacher's calls in one step, as in distribution matching.
template <class Student, class Critic, class Teacher, class Backward>
void distillation_step(const at::Tensor& noise, Student& student, Critic& critic, Teacher& teacher,
                       const Backward& backward) {
  at::Tensor fake;
  {
    at::NoGradGuard no_grad;
    fake = student.forward(noise);
  }
  backward(loss_of(critic.forward(fake)));
  const at::Tensor made = student.forward(student.forward(noise));
  at::Tensor direction;
  {
    at::NoGradGuard no_grad;
    direction = critic.forward(made) - teacher.forward(made);
  }
  // One part comes back through the teacher.
  backward((made * direction).sum() + teacher.forward(made).square().mean());
}

TEST(ShardedGradients, OfThreeInterleavedModelsAreTheirOwn) {
  ToyModel student_twin, critic_twin, teacher_twin;
  for (auto& parameter : teacher_twin.parameters()) {
    parameter.requires_grad_(false);
  }
  for (int rank = 0; rank < world().size(); ++rank) {
    int part = 0;
    distillation_step(toy_sample(rank, 0), student_twin, critic_twin, teacher_twin,
                      [&](const at::Tensor& loss) {
                        loss.backward();
                        ++part;
                      });
    ASSERT_EQ(part, 2);
  }
  for (const auto& way : ways(at::kFloat)) {
    SCOPED_TRACE(text_of(way, testing::meshes().front()));
    const comm::Mesh mesh = testing::one_copy();
    const auto student = shard_toy("student", mesh, way), critic = shard_toy("critic", mesh, way);
    auto frozen = way;
    frozen.trained = false;
    const auto teacher = shard_toy("teacher", mesh, frozen);
    const auto models = {student.sharded, critic.sharded, teacher.sharded};
    for (const auto& model : models) {
      model->begin_step();
    }
    distillation_step(toy_sample(world().rank(), 0), *student.model, *critic.model, *teacher.model,
                      [&](const at::Tensor& loss) {
                        loss.backward();
                        for (const auto& model : models) {
                          model->end_backward();
                        }
                      });
    for (const auto& model : models) {
      model->finish_gradients();
    }
    EXPECT_LE(gradient_error(*student.sharded, student_twin), 2e-6);
    EXPECT_LE(gradient_error(*critic.sharded, critic_twin), 2e-6);
    mesh.parameters->check_order();
    mesh.gradients->check_order();
  }
}

TEST(ShardedGradients, HaveNoSecondDerivatives) {
  const auto toy = shard_toy("toy", testing::one_copy(), {});
  const at::Tensor x = toy_sample(0, 0).requires_grad_(true);
  const at::Tensor loss = loss_of(toy.model->forward(x));
  EXPECT_THROW((void)torch::autograd::grad({loss}, {x}, {}, true, true), c10::Error);
}

}  // namespace
}  // namespace minwm::parallel
