#include "call_order.h"

#include <map>

#include "minwm/core/error.h"

namespace minwm::train {
namespace {

struct Group {
  const char* name;
  const comm::Communicator* members;
  int id;  ///< of the group that `rank` is in
};

/// The mesh's groups as seen by a rank of the world.
std::vector<Group> groups_of(const comm::Mesh& mesh, int rank) {
  const auto ids =
      comm::group_ids(rank, mesh.context->size(), mesh.ulysses->size(), mesh.parameters->size());
  return {{"context", mesh.context.get(), ids.context},
          {"ulysses", mesh.ulysses.get(), ids.ulysses},
          {"ring", mesh.ring.get(), ids.ring},
          {"parameters", mesh.parameters.get(), ids.copy},
          {"gradients", mesh.gradients.get(), ids.copy},
          {"replicate", mesh.replicate.get(), ids.replicate}};
}

}  // namespace

std::vector<double> order_of_calls(const comm::Mesh& mesh) {
  std::vector<double> order;
  for (const auto& group : groups_of(mesh, mesh.world->rank())) {
    order.push_back(static_cast<double>(group.members->ledger() >> 12U));
  }
  return order;
}

void require_same_order(const comm::Mesh& mesh, const at::Tensor& everyone, int64_t step) {
  const auto calls = everyone.accessor<double, 2>();
  std::map<std::pair<size_t, int>, int> first;  // rank of each group seen first
  for (int rank = 0; rank < static_cast<int>(everyone.size(0)); ++rank) {
    const auto groups = groups_of(mesh, rank);
    for (size_t i = 0; i < groups.size(); ++i) {
      const int other = first.emplace(std::make_pair(i, groups[i].id), rank).first->second;
      const auto column = static_cast<int64_t>(i);
      if (calls[rank][column] != calls[other][column]) {
        throw Error(fmt::format("step {}: ranks {} and {} made other collective calls in their "
                                "group of '{}'",
                                step, other, rank, groups[i].name),
                    kExitFailure);
      }
    }
  }
}

}  // namespace minwm::train
