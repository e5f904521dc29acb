#pragma once
// A model whose weights, and perhaps tokens, are spread over a mesh against the same model in one
// place.

#include <functional>
#include <memory>

#include <gtest/gtest.h>

#include "minwm/models/backbone.h"
#include "minwm/nn/parameters.h"
#include "minwm/parallel/context.h"
#include "tests/parallel/sharded_test.h"

namespace minwm::testing {

/// Of one of the clips that data ranks have.
using ClipLoss = std::function<at::Tensor(models::Backbone&, int64_t clip)>;

struct SpreadModel {
  /// With the values that both have.
  std::function<std::shared_ptr<models::Backbone>()> whole;
  /// Under HollowParameters.
  std::function<std::shared_ptr<models::Backbone>()> hollow;
};

/// Largest difference of gradients on any rank, relative to the largest entry of all. Expects that
/// the same parameters got one.
inline double sharded_error(const SpreadModel& make, const comm::MeshOptions& mesh_options,
                            const parallel::ShardOptions& options, const ClipLoss& loss) {
  const comm::Mesh mesh = comm::make_mesh(world().communicator(), mesh_options);
  const auto twin = make.whole();
  twin->set_compute_dtype(options.compute);
  for (int64_t clip = 0; clip < mesh.data_size(); ++clip) {
    loss(*twin, clip).backward();
  }
  std::shared_ptr<models::Backbone> model;
  {
    const nn::HollowParameters hollow;
    model = make.hollow();
  }
  model->set_compute_dtype(options.compute);
  const auto sharded =
      std::make_shared<parallel::ShardedModel>("model", *model, model->units(), mesh, options);
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
  return world().communicator()->all_reduce_max(gradient_error(*sharded, *twin), "error");
}

/// On every mesh, with and without recompute.
inline void expect_small_error(const char* what, const SpreadModel& make, at::ScalarType compute,
                               const ClipLoss& loss, double tolerance) {
  for (const auto& mesh : meshes()) {
    for (const bool recompute : {true, false}) {
      const double error =
          sharded_error(make, mesh, {.compute = compute, .recompute = recompute}, loss);
      EXPECT_LE(error, tolerance) << what << " " << mesh.shard << "x" << mesh.context;
      if (world().rank() == 0) {
        fmt::print("  {}, mesh {}x{}x{}, {}: {:.1e} of max\n", what, mesh.replicate, mesh.shard,
                   mesh.context, recompute ? "recomputed" : "kept", error);
      }
    }
  }
}

/// Losses of a model whose weights are spread over all ranks are bit for bit those of one place.
inline void expect_same_losses(const SpreadModel& make, const std::vector<ClipLoss>& losses) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    const auto model = make.whole(), twin = make.whole();
    for (auto* each : {model.get(), twin.get()}) {
      each->set_compute_dtype(compute);
    }
    model->set_unit_runner(std::make_shared<parallel::ShardedModel>(
        "model", *model, model->units(), one_copy(), parallel::ShardOptions{.compute = compute}));
    at::NoGradGuard no_grad;
    for (const auto& loss : losses) {
      EXPECT_TRUE(at::equal(loss(*model, 0), loss(*twin, 0)));
    }
  }
}

}  // namespace minwm::testing
