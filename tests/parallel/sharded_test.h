#pragma once
// What tests of sharding share: meshes of the present world, and a toy model spread over one.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "minwm/comm/mesh.h"
#include "minwm/parallel/sharded_model.h"
#include "tests/comm/mpi_test.h"
#include "tests/parallel/toy_model.h"

namespace minwm::testing {

/// Meshes of all ranks: shards alone, with context ranks, with replicas.
inline std::vector<comm::MeshOptions> meshes() {
  const int64_t ranks = world().size();
  std::vector<comm::MeshOptions> all{{.replicate = 1, .shard = ranks, .timeout = 30}};
  if (ranks > 1) {
    all.push_back({.replicate = ranks / 2, .shard = 1, .context = 2, .timeout = 30});
    all.push_back({.replicate = 2, .shard = ranks / 2, .timeout = 30});
  }
  return all;
}

inline comm::Mesh one_copy() {
  return comm::make_mesh(world().communicator(), meshes().front());
}

struct ShardedToy {
  std::shared_ptr<ToyModel> model;
  std::shared_ptr<parallel::ShardedModel> sharded;
};

/// Made hollow and loaded, with the toy's initial values.
inline ShardedToy shard_toy(const std::string& name, const comm::Mesh& mesh,
                            const parallel::ShardOptions& options, const ToySize& size = {}) {
  ShardedToy toy{hollow_toy(size), nullptr};
  toy.sharded =
      std::make_shared<parallel::ShardedModel>(name, *toy.model, toy.model->units(), mesh, options);
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& piece : toy.sharded->pieces()) {
    shapes[piece.name] = piece.shape;
  }
  toy.sharded->load([&](const std::string& parameter, int64_t begin, int64_t count) {
    return ToyModel::initial(parameter, shapes.at(parameter)).reshape(-1).narrow(0, begin, count);
  });
  toy.model->runner = toy.sharded;
  toy.model->compute = options.compute;
  return toy;
}

/// Largest difference between the pieces' gradients and the twin's, relative to its largest.
inline double gradient_error(const parallel::ShardedModel& sharded, const torch::nn::Module& twin) {
  double error = 0, largest = 0;
  const auto parameters = twin.named_parameters();
  for (const auto& piece : sharded.pieces()) {
    const at::Tensor whole = parameters[piece.name].grad();
    if (whole.defined()) {
      largest = std::max(largest, whole.abs().max().item<double>());
    }
    if (piece.values.numel() > 0) {
      const at::Tensor expected =
          whole.defined()
              ? whole.reshape(-1).narrow(0, piece.begin, piece.values.numel()).to(at::kFloat)
              : at::zeros({piece.values.numel()});
      error = std::max(error, (piece.gradient - expected).abs().max().item<double>());
    }
  }
  return error / largest;
}

}  // namespace minwm::testing
