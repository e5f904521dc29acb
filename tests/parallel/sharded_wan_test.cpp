// A Wan model whose weights, and perhaps tokens, are spread over ranks against the same model in
// one place.

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "minwm/core/random.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/nn/parameters.h"
#include "minwm/parallel/context.h"
#include "tests/parallel/sharded_test.h"
#include "tests/parallel/small_wan.h"

namespace minwm::models {
namespace {

using parallel::ShardedModel;
using parallel::ShardOptions;
using parallel::testing::kChannels;
using parallel::testing::kHeight;
using parallel::testing::kTextDim;
using parallel::testing::lively_model;
using parallel::testing::small_config;
using testing::world;

constexpr int64_t kLayers = 3, kWidth = 10;

Conditions moving_cameras(int64_t sample, int64_t first, int64_t frames) {
  Conditions conditions;
  conditions.text = random_normal({1, 3, kTextDim}, {5, "text", 0, static_cast<uint64_t>(sample)});
  at::Tensor view = at::eye(4).repeat({1, frames, 1, 1});
  view.select(3, 3).select(2, 0).copy_(at::arange(first, first + frames) * 0.1);
  conditions.cameras = {view, at::eye(3).repeat({1, frames, 1, 1}) * 0.5};
  return conditions;
}

at::Tensor draw(const char* purpose, int64_t sample, int64_t frames) {
  return random_normal({1, frames, kChannels, kHeight, kWidth},
                       {3, purpose, 0, static_cast<uint64_t>(sample)});
}

at::Tensor teacher_forcing_loss(WanBackbone& model, int64_t sample) {
  ForwardInput input;
  input.latents = draw("noisy", sample, 4);
  input.timestep = random_uniform({1, 4}, {3, "timestep"}) * 1000;
  input.conditions = moving_cameras(sample, 0, 4);
  input.clean_latents = draw("clean", sample, 4);
  input.chunk_frames = 2;
  return (model.forward(input) - draw("target", sample, 4)).square().mean();
}

/// Three chunks, each denoised in a call without and one under gradients, and committed: one graph
/// calls every unit three times.
at::Tensor rollout_loss(WanBackbone& model, int64_t sample) {
  const auto cache = model.make_cache({1, 4, 1}, kHeight, kWidth);
  std::vector<at::Tensor> chunks;
  for (int64_t first = 0; first < 6; first += 2) {
    StreamInput input;
    input.latents = draw("noise", sample, 6).narrow(1, first, 2);
    input.timestep = at::full({1, 2}, 700.0);
    input.conditions = moving_cameras(sample, first, 2);
    {
      at::NoGradGuard no_grad;
      input.latents = input.latents - 0.3 * model.stream(input, *cache);
    }
    input.timestep = at::full({1, 2}, 400.0);
    chunks.push_back(input.latents - 0.4 * model.stream(input, *cache));
    input.latents = chunks.back().detach();
    input.timestep = at::zeros({1, 2});
    input.commit = true;
    model.stream(input, *cache);
  }
  return (at::cat(chunks, 1) - draw("target", sample, 6)).square().mean();
}

using Loss = at::Tensor (*)(WanBackbone&, int64_t sample);

double sharded_error(const comm::MeshOptions& mesh_options, const ShardOptions& options,
                     Loss loss) {
  const comm::Mesh mesh = comm::make_mesh(world().communicator(), mesh_options);
  const auto twin = lively_model(small_config(kLayers));
  twin->set_compute_dtype(options.compute);
  for (int64_t sample = 0; sample < mesh.data_size(); ++sample) {
    loss(*twin, sample).backward();
  }
  std::shared_ptr<WanBackbone> model;
  {
    const nn::HollowParameters hollow;
    model = std::make_shared<WanBackbone>(small_config(kLayers), 1);
  }
  model->set_compute_dtype(options.compute);
  const auto sharded = std::make_shared<ShardedModel>("wan", *model, model->units(), mesh, options);
  const auto values = twin->named_parameters();
  sharded->load([&](const std::string& name, int64_t begin, int64_t count) {
    return values[name].detach().reshape(-1).narrow(0, begin, count);
  });
  model->set_unit_runner(sharded);
  if (mesh.context->size() > 1) {
    model->set_context(std::make_shared<parallel::Context>(mesh));
  }
  sharded->begin_step();
  loss(*model, mesh.data_rank()).backward();
  sharded->end_backward();
  sharded->finish_gradients();
  for (const auto& item : values) {
    EXPECT_EQ(sharded->touched(item.key()), item.value().grad().defined()) << item.key();
  }
  return world().communicator()->all_reduce_max(testing::gradient_error(*sharded, *twin), "error");
}

void expect_small_error(const char* what, at::ScalarType compute, Loss loss, double tolerance) {
  for (const auto& mesh : testing::meshes()) {
    for (const bool recompute : {true, false}) {
      const double error = sharded_error(mesh, {.compute = compute, .recompute = recompute}, loss);
      EXPECT_LE(error, tolerance) << what << " " << mesh.shard << "x" << mesh.context;
      if (world().rank() == 0) {
        fmt::print("  {}, mesh {}x{}x{}, {}: {:.1e} of max\n", what, mesh.replicate, mesh.shard,
                   mesh.context, recompute ? "recomputed" : "kept", error);
      }
    }
  }
}

TEST(ShardedWan, TeacherForcingHasTheGradientsOfOnePlace) {
  expect_small_error("teacher forcing", at::kFloat, teacher_forcing_loss, 2e-6);
}

TEST(ShardedWan, ARolloutThatCallsEveryUnitOftenHasTheGradientsOfOnePlace) {
  expect_small_error("rollout", at::kFloat, rollout_loss, 2e-6);
}

TEST(ShardedWan, Bfloat16StaysWithinItsRounding) {
  expect_small_error("bfloat16", at::kBFloat16, teacher_forcing_loss, 1e-2);
}

TEST(ShardedWan, ForwardsAreBitForBitThoseOfOnePlace) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    auto model = lively_model(small_config(kLayers));
    const auto twin = lively_model(small_config(kLayers));
    for (auto* each : {model.get(), twin.get()}) {
      each->set_compute_dtype(compute);
    }
    model->set_unit_runner(std::make_shared<ShardedModel>(
        "wan", *model, model->units(), testing::one_copy(), ShardOptions{.compute = compute}));
    at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(teacher_forcing_loss(*model, 0), teacher_forcing_loss(*twin, 0)));
    EXPECT_TRUE(at::equal(rollout_loss(*model, 0), rollout_loss(*twin, 0)));
  }
}

}  // namespace
}  // namespace minwm::models
