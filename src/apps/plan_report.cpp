#include "plan_report.h"

#include <spdlog/fmt/fmt.h>

namespace minwm::apps {
namespace {

using nlohmann::ordered_json;
using parallel::MemoryPlan;
using parallel::StepShape;
using parallel::TimePlan;
using parallel::WirePlan;

template <class T>
struct Item {
  const char* key;
  const char* title;
  T value;
};

std::vector<Item<int64_t>> items(const MemoryPlan& m) {
  return {{"parameters", "parameter slices", m.parameters},
          {"casts", "slices to be gathered", m.casts},
          {"gradients", "gradient slices", m.gradients},
          {"moments", "optimizer moments", m.moments},
          {"averages", "running average", m.averages},
          {"frozen", "frozen networks", m.frozen},
          {"root", "gathered root", m.root},
          {"text_work", "work on the text", m.text_work},
          {"gathered", "gathered blocks", m.gathered},
          {"exchange", "slices on their way", m.exchange},
          {"flat_gradients", "gradients to be reduced", m.flat_gradients},
          {"block_gradients", "gradients of parameters", m.block_gradients},
          {"unreduced", "unreduced gradients", m.unreduced},
          {"activations", "activations", m.activations},
          {"block_work", "work of one block", m.block_work},
          {"kv_cache", "KV cache of a rollout", m.kv_cache}};
}

std::vector<Item<double>> items(const WirePlan& w) {
  return {{"gathers", "weights gathered", w.gathers},
          {"reductions", "gradients reduced", w.reductions},
          {"replicate", "gradients between copies", w.replicate},
          {"ulysses", "heads for tokens (Ulysses)", w.ulysses},
          {"ring", "keys and values (ring)", w.ring}};
}

std::vector<Item<double>> items(const TimePlan& t) {
  return {{"compute", "compute", t.compute},
          {"weights", "weights and gradients (hidden)", t.weights},
          {"replicate", "between copies", t.replicate},
          {"ulysses", "Ulysses", t.ulysses},
          {"ring", "ring (hidden)", t.ring},
          {"step", "step", t.step}};
}

template <class T>
ordered_json json_of(const std::vector<Item<T>>& entries) {
  ordered_json out;
  for (const auto& item : entries) {
    out[item.key] = item.value;
  }
  return out;
}

/// Entries that are not zero, in units of `unit`.
template <class T>
std::string lines(const std::vector<Item<T>>& entries, double unit, const char* format) {
  std::string text;
  for (const auto& item : entries) {
    if (item.value != 0) {
      text += fmt::format("  {:<32}", item.title) +
              fmt::format(fmt::runtime(format), static_cast<double>(item.value) / unit);
    }
  }
  return text;
}

/// Where each network's weights are, a line for each.
std::string networks_text(const StepShape& step, const parallel::MeshShape& mesh) {
  std::string text;
  for (const auto& network : plan_networks(step, mesh)) {
    text += fmt::format(
        "  {:<12}{}{}, {}, {:.3f} GB per rank {}\n", network.name,
        network.trained ? "trained" : "frozen", network.averaged ? " with an average" : "",
        mesh.copy() > 1 ? fmt::format("shared by {} ranks", mesh.copy()) : "whole on every rank",
        static_cast<double>(network.bytes) / 1e9,
        network.offloaded ? "in host memory" : "on the device");
  }
  return text;
}

/// As `minwm train` takes it: whose parallel.ulysses 0 means all context ranks.
std::string options_of(const StepShape& step, const parallel::MeshShape& mesh) {
  const char* offload = step.offload_optimizer && step.offload_teacher ? "optimizer,teacher"
                        : step.offload_optimizer                       ? "optimizer"
                        : step.offload_teacher                         ? "teacher"
                                                                       : "";
  return fmt::format(
             "--parallel.replicate {} --parallel.shard {} --parallel.context {} "
             "--parallel.ulysses {}",
             mesh.replicate, mesh.shard, mesh.context, mesh.ulysses) +
         (step.offloads() ? fmt::format(" --parallel.offload {}", offload) : "");
}

std::string clip_text(const StepShape& step) {
  return fmt::format("{} latent frames of {} tokens", step.frames, step.frame_tokens);
}

std::string batch_text(const StepShape& step, const parallel::MeshShape& mesh) {
  return fmt::format("{} clips per step = {} data ranks x {} micro-batches of {}",
                     step.global_batch, mesh.data(),
                     step.global_batch / mesh.data() / step.micro_batch, step.micro_batch);
}

std::string assumptions(const StepShape& step) {
  const auto& d = step.device;
  return fmt::format(
      "estimates; assumed of {}: {:.1f} GB, {:.0f} TFLOP/s of which {:.0f} % are reached, {:.0f} "
      "GB/s "
      "in a node of {}, {:.0f} GB/s between nodes\n",
      d.name, d.memory / 1e9, d.flops / 1e12, 100 * d.efficiency, d.node_bandwidth / 1e9,
      d.per_node, d.wire_bandwidth / 1e9);
}

}  // namespace

ordered_json to_json(const PlannedStep& plan) {
  const auto& step = plan.step;
  ordered_json out;
  out["model"] = step.model.name;
  out["parameters"] = step.model.parameters();
  out["stage"] = step.stage;
  out["ranks"] = plan.ranks;
  out["clip"] = {{"latent_frames", step.frames}, {"frame_tokens", step.frame_tokens}};
  out["global_batch"] = step.global_batch;
  out["micro_batch"] = step.micro_batch;
  out["recompute"] = step.recompute;
  out["reduce"] = step.reduce_each ? "each" : "last";
  out["prefetch"] = step.prefetch;
  out["averaged"] = step.averaged;
  const auto& d = step.device;
  out["device"] = {{"name", d.name},
                   {"memory", d.memory},
                   {"usable", parallel::usable_memory(d)},
                   {"flops", d.flops},
                   {"efficiency", d.efficiency},
                   {"node_bandwidth", d.node_bandwidth},
                   {"wire_bandwidth", d.wire_bandwidth}};
  out["fits"] = plan.mesh.has_value();
  if (!plan.mesh) {
    const auto remedy = find_remedy(step, plan.ranks);
    out["remedy"] = remedy_text(remedy);
    return out;
  }
  const auto& mesh = *plan.mesh;
  out["mesh"] = {{"replicate", mesh.replicate},
                 {"shard", mesh.shard},
                 {"context", mesh.context},
                 {"ulysses", mesh.ulysses},
                 {"ring", mesh.ring()}};
  out["options"] = options_of(step, mesh);
  const auto memory = plan_memory(step, mesh);
  out["memory"] = json_of(items(memory));
  out["memory"]["total"] = memory.total();
  out["memory"]["steady"] = memory.steady();
  out["memory"]["host"] = memory.host;
  out["memory"]["activations_recomputed"] = memory.activations_recomputed;
  out["memory"]["activations_kept"] = memory.activations_kept;
  out["networks"] = ordered_json::array();
  for (const auto& network : plan_networks(step, mesh)) {
    out["networks"].push_back({{"name", network.name},
                               {"trained", network.trained},
                               {"averaged", network.averaged},
                               {"ranks", mesh.copy()},
                               {"offloaded", network.offloaded},
                               {"bytes", network.bytes}});
  }
  const auto wire = plan_wire(step, mesh);
  out["wire"] = json_of(items(wire));
  out["wire"]["total"] = wire.total();
  const auto time = plan_time(step, mesh);
  out["time"] = json_of(items(time));
  out["time"]["flop"] = time.flop;
  out["time"]["tokens_per_second"] = time.tokens_per_second;
  return out;
}

std::string plan_text(const PlannedStep& plan) {
  const auto& step = plan.step;
  const auto& mesh = *plan.mesh;
  const auto memory = plan_memory(step, mesh);
  const auto wire = plan_wire(step, mesh);
  const auto time = plan_time(step, mesh);
  const double usable = parallel::usable_memory(step.device),
               total = static_cast<double>(memory.total());
  std::string text =
      fmt::format("{} ({:.3f} billion parameters), {}, {}\n{} x {}: {}\n{}\nminwm train {}\n{}\n",
                  step.model.name, static_cast<double>(step.model.parameters()) / 1e9, step.stage,
                  clip_text(step), plan.ranks, step.device.name, to_string(mesh),
                  batch_text(step, mesh), options_of(step, mesh), networks_text(step, mesh));
  text += "bytes per rank                          GB\n" + lines(items(memory), 1e9, "{:>10.3f}\n");
  text += fmt::format("  {:<32}{:>10.3f}\n  {:<32}{:>10.3f}  of {:.1f} GB usable\n", "needed",
                      total / 1e9, "head room", (usable - total) / 1e9, usable / 1e9);
  text += fmt::format("  {:<32}{:>10.3f}  with checkpointing\n  {:<32}{:>10.3f}  without\n",
                      "activations", static_cast<double>(memory.activations_recomputed) / 1e9, "",
                      static_cast<double>(memory.activations_kept) / 1e9);
  if (memory.host > 0) {
    text += fmt::format("  {:<32}{:>10.3f}\n", "in host memory",
                        static_cast<double>(memory.host) / 1e9);
  }
  text += fmt::format("\nbytes sent per rank and step            GB\n{}  {:<32}{:>10.3f}\n",
                      lines(items(wire), 1e9, "{:>10.3f}\n"), "together", wire.total() / 1e9);
  text += "\ntime per step                            s\n" + lines(items(time), 1, "{:>10.3f}\n");
  text += fmt::format("  {:.3g} FLOP per rank, {:.0f} tokens per second in all\n", time.flop,
                      time.tokens_per_second);
  return text + assumptions(step);
}

std::string table_text(const std::vector<PlannedStep>& plans) {
  std::string text =
      fmt::format("{:<16}{:>6}  {:<52}{:>9}{:>10}{:>9}{:>10}{:>9}{:>12}\n", "stage", "ranks",
                  "mesh", "GB/rank", "head room", "wire GB", "compute s", "step s", "tokens/s");
  for (const auto& plan : plans) {
    text += fmt::format("{:<16}{:>6}  ", plan.step.stage, plan.ranks);
    if (!plan.mesh) {
      text += fmt::format("no mesh fits; {}\n", remedy_text(find_remedy(plan.step, plan.ranks)));
      continue;
    }
    const auto total = static_cast<double>(plan_memory(plan.step, *plan.mesh).total());
    const auto time = plan_time(plan.step, *plan.mesh);
    text += fmt::format("{:<52}{:>9.1f}{:>10.1f}{:>9.1f}{:>10.2f}{:>9.2f}{:>12.0f}\n",
                        to_string(*plan.mesh), total / 1e9,
                        (parallel::usable_memory(plan.step.device) - total) / 1e9,
                        plan_wire(plan.step, *plan.mesh).total() / 1e9, time.compute, time.step,
                        time.tokens_per_second);
  }
  const auto& step = plans.front().step;
  return fmt::format("{} ({:.3f} billion parameters), {}, {} clips per step, {}\n", step.model.name,
                     static_cast<double>(step.model.parameters()) / 1e9, clip_text(step),
                     step.global_batch, step.device.name) +
         text + assumptions(step);
}

}  // namespace minwm::apps
