// minwm plan: bytes per rank, bytes on the wire and time of a step, before a node-hour is spent.

#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/parallel/planning.h"
#include "model_shapes.h"
#include "plan_report.h"

namespace minwm::apps {
namespace {

using parallel::MeshShape;
using parallel::StepShape;

const std::vector<std::string> kStages = {"bidirectional", "teacher-forcing", "ode", "consistency",
                                          "dmd"};
const std::vector<int64_t> kTableRanks = {8, 16, 64, 128, 256, 512, 1024};
constexpr double kGiB = 1024.0 * 1024 * 1024;
constexpr int64_t kFramesPerLatent = 4;
constexpr double kRecipe = -1;

struct PlanCommand {
  std::string model = "wan-1.3b", gpu = "h100", optimizer = "adamw";
  int64_t gpus = 8, height = 480, width = 832, frames = 77, text_rows = 0;
  double gpu_memory = 0;
  bool table = false, json = false;
  std::string reduce = "each";
  double ema_decay = kRecipe;
  std::vector<std::string> offload;
  parallel::MeshWish wish;
  StepShape step;

  void declare(Options& options) {
    options.add("model", &model, "preset: wan-1.3b, hy-8b, …; hy-8b@2 = with 2 blocks");
    options.add("stage", &step.stage,
                "bidirectional, teacher-forcing, ode, consistency or dmd; --table without it: all");
    options.add("gpus", &gpus, "ranks of the job");
    options.add("gpu", &gpu, "kind of device: h100, h200, a100 or cpu");
    options.add("gpu_memory", &gpu_memory, "GiB of a device; 0 = what its kind has");
    options.add("height", &height, "pixels of a clip");
    options.add("width", &width, "pixels of a clip");
    options.add("frames", &frames, "video frames of a clip: 1 + 4 (latent frames - 1)");
    options.add("chunk_frames", &step.chunk_frames, "latent frames of a chunk (causal stages)");
    options.add("text_rows", &text_rows,
                "text and image feature rows of a clip; 0 = what the model usually has");
    options.add("table", &table, "plans for 8 to 1024 ranks instead of one");
    options.add("json", &json, "print JSON");
    options.add("parallel.replicate", &wish.replicate, "copies of the model; 0 or -1 = proposed");
    options.add("parallel.shard", &wish.shard, "ranks of a copy; 0 or -1 = proposed");
    options.add("parallel.context", &wish.context, "ranks of a sample; 0 or -1 = proposed");
    options.add("parallel.ulysses", &wish.ulysses,
                "of these, ranks that exchange heads; 0 = as many as divide the heads in a node");
    options.add("parallel.prefetch", &step.prefetch, "blocks gathered ahead of their use");
    options.add_choice("parallel.reduce", &reduce, {"each", "last"},
                       "gradients are reduced after each micro-batch, or once per step");
    options.add("parallel.offload", &offload, "what lives in host memory: optimizer, teacher");
    options.add("train.global_batch", &step.global_batch, "clips of a step, all ranks together");
    options.add("train.micro_batch", &step.micro_batch, "clips of one forward on one rank");
    options.add("train.recompute", &step.recompute, "recompute blocks in backward");
    options.add_choice("optimizer.name", &optimizer, {"adamw", "muon"},
                       "muon keeps one moment of a matrix, adamw two");
    options.add("ema.decay", &ema_decay,
                "more than 0: an average of the weights is kept; -1 = for dmd and consistency");
    options.add("rollout.window_frames", &step.window_frames, "attention window of rollouts");
    options.add("rollout.steps", &step.rollout_steps, "denoising steps of a chunk in rollouts");
    options.add("dmd.ratio", &step.generator_every, "iterations per generator update");
  }

  void set_stage(const std::string& stage) {
    step.stage = stage;
    // Consistency evaluates its average: it has one whatever the decay.
    step.averaged =
        ema_decay > 0 || stage == "consistency" || (ema_decay == kRecipe && stage == "dmd");
  }

  void resolve() {
    step.model = model_shape(model);
    step.device = parallel::device_kind(gpu);
    require(text_rows >= 0, "text_rows {}: expected a number of rows, or 0", text_rows);
    step.model.text_rows = text_rows > 0 ? text_rows : step.model.text_rows;
    require(gpu_memory >= 0, "gpu_memory {}: expected GiB, or 0", gpu_memory);
    if (gpu_memory > 0) {
      step.device.memory = gpu_memory * kGiB;
    }
    const int64_t side = step.model.pixels_per_token;
    require(height > 0 && width > 0 && height % side == 0 && width % side == 0,
            "{} x {} pixels: {} takes multiples of {}", height, width, model, side);
    require(frames > 0 && (frames - 1) % kFramesPerLatent == 0,
            "frames {}: expected 1 + a multiple of {}", frames, kFramesPerLatent);
    step.frames = 1 + (frames - 1) / kFramesPerLatent;
    step.frame_tokens = height / side * (width / side);
    step.muon = optimizer == "muon";
    step.reduce_each = reduce == "each";
    require(ema_decay == kRecipe || (ema_decay >= 0 && ema_decay < 1),
            "ema.decay {}: expected 0 (no average) to below 1, or -1", ema_decay);
    set_stage(step.stage);
    for (const auto& what : offload) {
      require(what == "optimizer" || what == "teacher",
              "parallel.offload {}: expected optimizer, teacher or both", what);
      (what == "teacher" ? step.offload_teacher : step.offload_optimizer) = true;
    }
  }
};

/// The plans of a table; ranks that no mesh fits are left out of JSON and named in the text.
std::vector<PlannedStep> table_of(const StepShape& step, const parallel::MeshWish& wish) {
  std::vector<PlannedStep> plans;
  for (const int64_t ranks : kTableRanks) {
    plans.push_back({step, ranks, propose_mesh(step, ranks, wish)});
  }
  return plans;
}

int print_table(PlanCommand& command, bool every_stage) {
  const auto stages = every_stage ? kStages : std::vector<std::string>{command.step.stage};
  std::vector<PlannedStep> plans;
  for (const auto& stage : stages) {
    command.set_stage(stage);
    command.step.check();
    const auto rows = table_of(command.step, command.wish);
    plans.insert(plans.end(), rows.begin(), rows.end());
  }
  if (command.json) {
    auto all = nlohmann::ordered_json::array();
    for (const auto& plan : plans) {
      all.push_back(to_json(plan));
    }
    fmt::print("{}\n", all.dump(2));
  } else {
    fmt::print("{}", table_text(plans));
  }
  return kExitDone;
}

int plan_command(comm::World& world, int argc, char** argv) {
  PlanCommand command;
  Options parser("minwm plan",
                 "Memory, communication and time of a training step: estimates. Without parallel.* "
                 "it proposes a mesh; what cannot fit is refused.");
  command.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  command.resolve();
  if (world.rank() != 0) {
    return kExitDone;
  }
  if (command.table) {
    return print_table(command, !parser.given("stage"));
  }
  const MeshShape mesh = parallel::choose_mesh(command.step, command.gpus, command.wish);
  const PlannedStep plan{command.step, command.gpus, mesh};
  fmt::print("{}", command.json ? to_json(plan).dump(2) + "\n" : plan_text(plan));
  return kExitDone;
}

const bool registered = register_command(
    "plan", "memory, communication and time of a model on a mesh of GPUs", plan_command);

}  // namespace
}  // namespace minwm::apps
