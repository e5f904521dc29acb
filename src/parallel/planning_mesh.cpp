#include <algorithm>
#include <functional>

#include "minwm/core/error.h"
#include "minwm/parallel/planning.h"
#include "planning_work.h"

namespace minwm::parallel {
namespace {

// Share of the memory that fragmentation and what is not counted here may take.
constexpr double kMargin = 0.1;
// How far a refusal looks for a number of ranks that would do.
constexpr int64_t kMostRanks = 4096;

bool agrees(int64_t wish, int64_t value) {
  return wish <= 0 || wish == value;
}

/// Why a rank would be without heads, rows or slices; empty if it would not.
std::string obstacle(const StepShape& step, const MeshShape& mesh) {
  if (mesh.context % mesh.ulysses != 0) {
    return fmt::format("parallel.ulysses {} does not divide parallel.context {}", mesh.ulysses,
                       mesh.context);
  }
  if (mesh.ulysses > step.model.heads) {
    return fmt::format("parallel.ulysses {} is more than the {} heads of {}", mesh.ulysses,
                       step.model.heads, step.model.name);
  }
  if (mesh.context > step.frame_tokens) {
    return fmt::format("parallel.context {} is more than the {} tokens of a latent frame",
                       mesh.context, step.frame_tokens);
  }
  return step.offloads() && mesh.copy() == 1 ? kOffloadNeedsShards : "";
}

bool shares_batch(const StepShape& step, const MeshShape& mesh) {
  return step.global_batch % (mesh.data() * step.micro_batch) == 0;
}

double needed(const StepShape& step, const MeshShape& mesh) {
  return static_cast<double>(plan_memory(step, mesh).total());
}

/// Calls `visit` with every mesh of these axes, the best first, until it returns true.
void for_each_wished(const StepShape& step, int64_t ranks, const MeshWish& wish,
                     const std::function<bool(const MeshShape&)>& visit) {
  for (int64_t context = 1; context <= ranks; ++context) {
    if (ranks % context != 0 || !agrees(wish.context, context)) {
      continue;
    }
    for (int64_t shard = 1; shard <= ranks / context; ++shard) {
      const MeshShape mesh{ranks / context / shard, shard, context,
                           wish.ulysses > 0 ? wish.ulysses : ulysses_of(step, context)};
      if (mesh.ranks() == ranks && agrees(wish.shard, shard) &&
          agrees(wish.replicate, mesh.replicate) && visit(mesh)) {
        return;
      }
    }
  }
}

/// The same with those that can be.
void for_each_mesh(const StepShape& step, int64_t ranks, const MeshWish& wish,
                   const std::function<bool(const MeshShape&)>& visit) {
  for_each_wished(step, ranks, wish, [&](const MeshShape& mesh) {
    return shares_batch(step, mesh) && obstacle(step, mesh).empty() && visit(mesh);
  });
}

std::string title(const StepShape& step, int64_t ranks) {
  return fmt::format("{} {} on {} x {}", step.model.name, step.stage, ranks, step.device.name);
}

/// A change to a step that makes it need less.
struct Change {
  std::string options;
  StepShape step;
};

/// What a step could do without, what trains the same first.
std::vector<Change> changes_of(const StepShape& step) {
  std::vector<Change> changes;
  const auto add = [&](const char* options, auto change) {
    StepShape changed = step;
    change(changed);
    changes.push_back({options, changed});
  };
  const auto networks = networks_of(step);
  const bool frozen = std::any_of(networks.begin(), networks.end(),
                                  [](const NetworkUse& network) { return !network.trained; });
  if (!step.recompute) {
    add("--train.recompute true", [](StepShape& s) { s.recompute = true; });
  }
  if (step.micro_batch > 1) {
    add("--train.micro_batch 1", [](StepShape& s) { s.micro_batch = 1; });
  }
  const bool teacher = frozen && !step.offload_teacher, optimizer = !step.offload_optimizer;
  if (teacher) {
    add("--parallel.offload teacher", [](StepShape& s) { s.offload_teacher = true; });
  }
  // Muon brings whole matrices together on the devices: it does not offload.
  if (optimizer && !step.muon) {
    add("--parallel.offload optimizer", [](StepShape& s) { s.offload_optimizer = true; });
    if (teacher) {
      add("--parallel.offload optimizer,teacher",
          [](StepShape& s) { s.offload_optimizer = s.offload_teacher = true; });
    }
    add("--optimizer.name muon", [](StepShape& s) { s.muon = true; });
  }
  return changes;
}

[[noreturn]] void refuse(const StepShape& step, int64_t ranks, const MeshShape& mesh) {
  const auto proposal = propose_mesh(step, ranks);
  fail("{}: {} needs {:.1f} GB per rank, {:.1f} GB are usable; {}", title(step, ranks),
       to_string(mesh), needed(step, mesh) / 1e9, usable_memory(step.device) / 1e9,
       proposal ? "it fits as " + to_string(*proposal)
                : "no mesh of these ranks fits; " + remedy_text(find_remedy(step, ranks)));
}

/// What stands in the way of every mesh of these axes, whatever the batch; empty if nothing does.
std::string common_obstacle(const StepShape& step, int64_t ranks, const MeshWish& wish) {
  std::string found;
  for_each_wished(step, ranks, wish, [&](const MeshShape& mesh) {
    found = obstacle(step, mesh);
    return found.empty();
  });
  return found;
}

/// The possible mesh that needs least memory.
MeshShape least(const StepShape& step, int64_t ranks, const MeshWish& wish) {
  std::optional<MeshShape> best;
  for_each_mesh(step, ranks, wish, [&](const MeshShape& mesh) {
    if (!best || needed(step, mesh) < needed(step, *best)) {
      best = mesh;
    }
    return false;
  });
  if (!best) {
    const std::string why = common_obstacle(step, ranks, wish);
    require(why.empty(), "{}: {}", title(step, ranks), why);
  }
  require(
      best.has_value(),
      "{}: no mesh with parallel.replicate {}, parallel.shard {}, parallel.context {} (0 = any) "
      "has that many ranks and shares train.global_batch {} out in micro-batches of {}",
      title(step, ranks), wish.replicate, wish.shard, wish.context, step.global_batch,
      step.micro_batch);
  return *best;
}

}  // namespace

double usable_memory(const DeviceKind& device) {
  return (device.memory - device.reserved) * (1 - kMargin);
}

int64_t ulysses_of(const StepShape& step, int64_t context) {
  for (int64_t ulysses = std::min({context, step.model.heads, step.device.per_node}); ulysses > 1;
       --ulysses) {
    if (context % ulysses == 0 && step.model.heads % ulysses == 0) {
      return ulysses;
    }
  }
  return 1;
}

std::optional<MeshShape> propose_mesh(const StepShape& step, int64_t ranks, const MeshWish& wish) {
  std::optional<MeshShape> found;
  for (const double share : {kRoom, 1.0}) {
    for_each_mesh(step, ranks, wish, [&](const MeshShape& mesh) {
      if (needed(step, mesh) <= share * usable_memory(step.device)) {
        found = mesh;
      }
      return found.has_value();
    });
    if (found) {
      break;
    }
  }
  return found;
}

std::optional<Remedy> find_remedy(const StepShape& step, int64_t ranks) {
  for (const auto& change : changes_of(step)) {
    if (const auto mesh = propose_mesh(change.step, ranks)) {
      return Remedy{change.options, change.step, ranks, *mesh};
    }
  }
  for (int64_t more = 2 * ranks; more <= kMostRanks; more *= 2) {
    if (const auto mesh = propose_mesh(step, more)) {
      return Remedy{fmt::format("{} ranks", more), step, more, *mesh};
    }
  }
  return std::nullopt;
}

std::string remedy_text(const std::optional<Remedy>& remedy) {
  return remedy ? fmt::format("with {} it fits as {}", remedy->options, to_string(remedy->mesh))
                : "a shorter clip, --parallel.offload on more ranks or a larger device might do";
}

MeshShape choose_mesh(const StepShape& step, int64_t ranks, const MeshWish& wish) {
  step.check();
  require(ranks > 0, "{} ranks: expected 1 or more", ranks);
  if (const auto mesh = propose_mesh(step, ranks, wish)) {
    return *mesh;
  }
  refuse(step, ranks, least(step, ranks, wish));
}

}  // namespace minwm::parallel
