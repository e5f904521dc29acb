#include <algorithm>
#include <map>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/parallel/planning.h"
#include "planning_work.h"

namespace minwm::parallel {
namespace {

constexpr double kFloat = 4;

double others(int64_t ranks) {
  return static_cast<double>(ranks - 1) / static_cast<double>(ranks);
}

/// Forward FLOP of a pass on one clip, all context ranks together.
double forward_flop(const StepShape& step, const Pass& pass) {
  const auto& m = step.model;
  const auto frame = static_cast<double>(step.frame_tokens), width = static_cast<double>(m.width);
  const auto text = static_cast<double>(m.text_rows);
  const double tokens = pass.query_frames * frame;
  // A rollout runs its text once, for all of its calls.
  const double multiplies = tokens * static_cast<double>(m.token_multiplies) +
                            text * static_cast<double>(m.text_multiplies);
  // Queries times keys, and weights times values; the camera path once more, for image queries.
  double pairs = static_cast<double>(m.paths()) * pass.pairs * frame * frame;
  if (m.joint_text) {
    pairs += static_cast<double>(m.paths()) * tokens * text + text * text;
    pairs += pass.text_sees_image ? text * tokens : 0;
  } else {
    pairs += tokens * text;
  }
  return 2 * static_cast<double>(m.blocks) * (multiplies + 2 * width * pairs);
}

/// Times that a pass's forward is computed: backward is two, recomputation one more.
double forwards(const StepShape& step, const Pass& pass) {
  return pass.backward ? (step.recompute ? 4 : 3) : 1;
}

/// Exchanges of heads for tokens: q, k, v there, every path's output back, for each forward and
/// each backward.
double ulysses_bytes(const StepShape& step, const MeshShape& mesh, const Pass& pass) {
  const auto& m = step.model;
  const double rows = pass.query_frames * static_cast<double>(rank_tokens(step, mesh, 1));
  const double width = static_cast<double>(m.width * step.device.compute_bytes);
  double bytes = static_cast<double>(3 + m.paths()) * rows * width * others(mesh.ulysses);
  if (m.joint_text && mesh.context > 1) {
    // Every rank has all text rows, takes its heads of them and gathers the others' outputs.
    bytes += static_cast<double>(m.text_rows * pass.calls) * width * others(mesh.ulysses) /
             static_cast<double>(mesh.ulysses);
  }
  return bytes * (pass.backward ? (step.recompute ? 3 : 2) : 1);
}

/// Transformed keys and values go around; in backward they go again, and their float32 gradients
/// with them, one hop further: home.
double ring_bytes(const StepShape& step, const MeshShape& mesh, const Pass& pass) {
  const auto& m = step.model;
  const auto hops = static_cast<double>(mesh.ring() - 1);
  const double elements = 2 * static_cast<double>(m.paths() * m.width) * pass.key_frames *
                          static_cast<double>(rank_tokens(step, mesh, 1));
  const auto compute = static_cast<double>(step.device.compute_bytes);
  double bytes = elements * compute * hops;
  if (pass.backward) {
    bytes *= step.recompute ? 3 : 2;
    bytes += mesh.ring() > 1 ? elements * kFloat * (hops + 1) : 0;
  }
  return bytes;
}

struct Traffic {
  double gathered, reduced;  // of a whole pass over one network, before (N - 1) / N
};

Traffic weight_traffic(const StepShape& step, const Pass& pass) {
  const auto& m = step.model;
  const auto root = static_cast<double>(m.root.parameters()) * kFloat;
  const double blocks = static_cast<double>(m.blocks) *
                        (static_cast<double>(m.block.matrices * step.device.compute_bytes) +
                         static_cast<double>(m.block.vectors) * kFloat);
  const auto calls = static_cast<double>(pass.calls);
  // Kept activations: autograd adds all calls' gradients up before it hands them over.
  const bool each_call = step.reduce_each && step.recompute;
  const double blocks_reduced =
      static_cast<double>(m.blocks * m.block.parameters()) * kFloat * (each_call ? calls : 1);
  return {pass.root_gathers * root + calls * blocks * (pass.backward ? 2 : 1),
          blocks_reduced + root};
}

/// Rate of a collective over ranks that are `stride` apart and span `span` ranks: what a rank gets
/// comes over the adapters of all its members in a node.
double bandwidth(const StepShape& step, int64_t span, int64_t stride) {
  const auto& d = step.device;
  if (span <= d.per_node) {
    return d.node_bandwidth;
  }
  const auto members = static_cast<double>(std::max<int64_t>(1, d.per_node / stride));
  return std::min(d.node_bandwidth, members * d.wire_bandwidth);
}

/// Rate from one rank to another in a group that spans `span` ranks.
double link_bandwidth(const StepShape& step, int64_t span) {
  return span <= step.device.per_node ? step.device.node_bandwidth : step.device.wire_bandwidth;
}

const std::map<std::string, DeviceKind>& kinds() {
  constexpr double kGiB = 1024.0 * 1024 * 1024, kTera = 1e12, kGiga = 1e9;
  // Published peaks (dense bfloat16; NVLink per direction; one 400 or 200 Gbit/s adapter per GPU).
  // The share that a step reaches, and what a CPU rank has, are assumptions.
  static const std::map<std::string, DeviceKind> all = {
      {"h100",
       {"h100", 79 * kGiB, 2 * kGiB, 989 * kTera, 0.4, 450 * kGiga, 50 * kGiga, 8, 2, false}},
      {"h200",
       {"h200", 139 * kGiB, 2 * kGiB, 989 * kTera, 0.4, 450 * kGiga, 50 * kGiga, 8, 2, false}},
      {"a100",
       {"a100", 79 * kGiB, 2 * kGiB, 312 * kTera, 0.5, 300 * kGiga, 25 * kGiga, 8, 2, false}},
      {"cpu", {"cpu", 16 * kGiB, 0.5 * kGiB, 0.1 * kTera, 0.5, 2 * kGiga, 1 * kGiga, 64, 4, true}}};
  return all;
}

}  // namespace

WirePlan plan_wire(const StepShape& step, const MeshShape& mesh) {
  step.check();
  const auto accumulation = static_cast<double>(accumulation_of(step, mesh));
  const auto clips = static_cast<double>(step.micro_batch);
  const auto blocks = static_cast<double>(step.model.blocks);
  WirePlan wire;
  for (const auto& network : networks_of(step)) {
    for (const auto& pass : network.passes) {
      const Traffic traffic = weight_traffic(step, pass);
      const double passes = pass.count * accumulation;
      wire.gathers += passes * traffic.gathered * others(mesh.copy());
      if (pass.backward) {
        wire.reductions += pass.count * (step.reduce_each ? accumulation : 1) * traffic.reduced *
                           others(mesh.copy());
      }
      wire.ulysses += passes * clips * blocks * ulysses_bytes(step, mesh, pass);
      wire.ring += passes * clips * blocks * ring_bytes(step, mesh, pass);
    }
    const double slice =
        kFloat * static_cast<double>(step.model.parameters()) / static_cast<double>(mesh.copy());
    wire.replicate += network.updates * 2 * slice * others(mesh.replicate);
  }
  return wire;
}

TimePlan plan_time(const StepShape& step, const MeshShape& mesh) {
  const WirePlan wire = plan_wire(step, mesh);
  const auto clips = static_cast<double>(accumulation_of(step, mesh) * step.micro_batch);
  TimePlan time;
  for (const auto& network : networks_of(step)) {
    for (const auto& pass : network.passes) {
      time.flop += clips * pass.count * forwards(step, pass) * forward_flop(step, pass) /
                   static_cast<double>(mesh.context);
    }
  }
  time.compute = time.flop / (step.device.flops * step.device.efficiency);
  time.weights = (wire.gathers + wire.reductions) / bandwidth(step, mesh.copy(), 1);
  time.replicate = wire.replicate / bandwidth(step, mesh.ranks(), mesh.copy());
  time.ulysses = wire.ulysses / link_bandwidth(step, mesh.ulysses);
  time.ring = wire.ring / link_bandwidth(step, mesh.context);
  time.step = std::max({time.compute, time.weights, time.ring}) + time.ulysses + time.replicate;
  time.tokens_per_second =
      static_cast<double>(step.global_batch * step.frames * step.frame_tokens) / time.step;
  return time;
}

DeviceKind device_kind(const std::string& name) {
  const auto found = kinds().find(name);
  if (found == kinds().end()) {
    const std::string nearest = nearest_name(name, device_kinds());
    fail("gpu '{}' is not known{}", name,
         nearest.empty() ? " (h100, h200, a100, cpu)" : "; did you mean " + nearest + "?");
  }
  return found->second;
}

std::vector<std::string> device_kinds() {
  std::vector<std::string> names;
  for (const auto& [name, kind] : kinds()) {
    names.push_back(name);
  }
  return names;
}

}  // namespace minwm::parallel
