#include "minwm/comm/mesh.h"

#include <utility>

#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::comm {

void MeshOptions::declare(Options& options) {
  options.add("parallel.replicate", &replicate,
              "copies of the model; -1 = ranks / (shard*context)");
  options.add("parallel.shard", &shard, "ranks that share one copy of the weights");
  options.add("parallel.context", &context, "ranks that share one sample's tokens");
  options.add("parallel.timeout", &timeout, "seconds before a stuck collective ends the job");
}

Mesh make_mesh(std::shared_ptr<Communicator> world, const MeshOptions& options) {
  const int64_t size = world->size();
  require(options.shard >= 1, "parallel.shard {}: expected 1 or more", options.shard);
  require(options.context >= 1, "parallel.context {}: expected 1 or more", options.context);
  require(options.replicate >= 1 || options.replicate == -1,
          "parallel.replicate {}: expected 1 or more, or -1 for what is left", options.replicate);
  require(options.timeout > 0, "parallel.timeout {}: expected more than 0 seconds",
          options.timeout);
  // Bounded first, so that the product below cannot overflow.
  require(options.shard <= size && options.context <= size,
          "parallel.shard {} x parallel.context {} does not fit {} ranks", options.shard,
          options.context, size);
  const int64_t copy = options.shard * options.context;
  const int64_t replicate = options.replicate == -1 ? size / copy : options.replicate;
  require(replicate <= size && replicate * copy == size,
          "parallel.replicate {} x parallel.shard {} x parallel.context {} is not {} ranks",
          options.replicate, options.shard, options.context, size);
  world->set_timeout(options.timeout);
  const auto context_size = static_cast<int>(options.context);
  Mesh mesh;
  mesh.data = world->split(world->rank() % context_size);
  mesh.context = world->split(world->rank() / context_size);
  mesh.world = std::move(world);
  return mesh;
}

}  // namespace minwm::comm
