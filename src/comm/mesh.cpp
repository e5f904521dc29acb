#include "minwm/comm/mesh.h"

#include <utility>

#include "minwm/comm/nccl.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::comm {

void MeshOptions::declare(Options& options) {
  options.add("parallel.replicate", &replicate,
              "copies of the model; -1 = what shard and context leave");
  options.add("parallel.shard", &shard,
              "ranks that share one copy of the weights; -1 = what is left");
  options.add("parallel.context", &context,
              "ranks that share one sample's tokens; -1 = what is left");
  options.add("parallel.ulysses", &ulysses,
              "context ranks that exchange heads, the others pass keys around a ring; 0 = all");
  options.add("parallel.timeout", &timeout, "seconds before a stuck collective ends the job");
}

namespace {

void check_axis(const char* name, int64_t value) {
  require(value >= 1 || value == -1, "parallel.{} {}: expected 1 or more, or -1 for what is left",
          name, value);
}

/// The options with every -1 resolved.
MeshOptions resolve(MeshOptions options, int64_t size) {
  check_axis("replicate", options.replicate);
  check_axis("shard", options.shard);
  check_axis("context", options.context);
  const auto given = fmt::format("parallel.replicate {} x parallel.shard {} x parallel.context {}",
                                 options.replicate, options.shard, options.context);
  int64_t* open = nullptr;
  int64_t product = 1;
  for (int64_t* axis : {&options.replicate, &options.shard, &options.context}) {
    if (*axis == -1) {
      require(open == nullptr, "{}: only one of them may be -1 (what is left)", given);
      open = axis;
      continue;
    }
    // Bounded first, so that the product cannot overflow.
    require(*axis <= size, "{} does not fit {} ranks", given, size);
    product *= *axis;
  }
  if (open != nullptr) {
    require(product <= size && size % product == 0, "{} does not fit {} ranks", given, size);
    *open = size / product;
  } else {
    require(product == size, "{} is not {} ranks", given, size);
  }
  const int64_t ulysses = options.ulysses == 0 ? options.context : options.ulysses;
  require(ulysses >= 1 && options.context % ulysses == 0,
          "parallel.ulysses {} does not divide parallel.context {}", options.ulysses,
          options.context);
  options.ulysses = ulysses;
  return options;
}

}  // namespace

GroupIds group_ids(int rank, int context, int ulysses, int copy) {
  return {.data = rank % context,
          .context = rank / context,
          .ulysses = rank / ulysses,
          .ring = rank / context * ulysses + rank % ulysses,
          .copy = rank / copy,
          .replicate = rank % copy};
}

Mesh make_mesh(std::shared_ptr<Communicator> world, const MeshOptions& given) {
  const MeshOptions options = resolve(given, world->size());
  require(options.timeout > 0, "parallel.timeout {}: expected more than 0 seconds",
          options.timeout);
  world->set_timeout(options.timeout);
  const auto context = static_cast<int>(options.context);
  const GroupIds ids = group_ids(world->rank(), context, static_cast<int>(options.ulysses),
                                 static_cast<int>(options.shard) * context);
  Mesh mesh;
  // In this order on every rank.
  mesh.data = world->split(ids.data);
  mesh.context = world->split(ids.context);
  mesh.ulysses = world->split(ids.ulysses);
  mesh.ring = world->split(ids.ring);
  mesh.parameters = world->split(ids.copy);
  mesh.gradients = world->split(ids.copy);
  mesh.replicate = world->split(ids.replicate);
  mesh.world = std::move(world);
  return mesh;
}

Mesh make_device_mesh(Mesh mesh, c10::Device device) {
  if (device.is_cuda()) {
    // In this order on every rank.
    for (auto* part : {&mesh.context, &mesh.ulysses, &mesh.ring, &mesh.parameters, &mesh.gradients,
                       &mesh.replicate}) {
      *part = make_nccl_communicator(*part, device);
    }
  }
  return mesh;
}

}  // namespace minwm::comm
