// minwm train: one stage from one INI file.

#include <filesystem>

#include <spdlog/spdlog.h>

#include "command.h"
#include "compare_runs.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/data/loader.h"
#include "minwm/models/codec/codec.h"
#include "minwm/parallel/planning.h"
#include "minwm/train/gap_evaluation.h"
#include "minwm/train/loop.h"
#include "model_shapes.h"
#include "probe.h"
#include "stage_options.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;

struct TrainCommand {
  std::string model = "wan-tiny", init, resume = "auto", device = "cpu", output, codec, eval_store,
              negative, compare, reference, write_reference, camera_cache = "dual";
  std::vector<std::string> stores;
  models::Allowance init_allows;
  int64_t seed = 0, eval_every = 250, eval_clips = 24;
  bool dry_run = false, context_action = false;
  train::RunOptions run;
  comm::MeshOptions mesh;
  ShardingOptions sharding;
  StageOptions stage;
  ProbeOptions probe;
  int64_t probe_every = 0;

  void declare(Options& options) {
    options.add("model", &model,
                "preset: wan-tiny, wan-1.3b, hy-tiny, hy-8b, …; NAME@N = with N blocks");
    options.add_choice("model.camera_cache", &camera_cache, {"dual", "rope_only"},
                       "how the camera attention of hy models reads committed frames: through "
                       "their cameras, or as the published checkpoints do");
    options.add("model.context_action", &context_action,
                "committed frames are told their actions (hy models with actions), as the "
                "published checkpoints are");
    options.add("seed", &seed, "of weights, data order and every random draw");
    options.add(
        "init", &init,
        "weights to start from: a checkpoint or run folder (its averaged weights), or safetensors");
    options.add(
        "init_missing", &init_allows.missing,
        "parts of names of parameters that --init may lack, comma separated: these start as "
        "without it (img_attn_prope_proj, action_in)");
    options.add("init_ignore", &init_allows.extra,
                "parts of names of tensors that --init may have and the model not");
    options.add("resume", &resume,
                "auto = continue the run in output.dir if there is one, none, or a checkpoint");
    options.add("dry_run", &dry_run, "print configuration, mesh and batch, then exit");
    options.add("device", &device, "cpu or cuda");
    options.add("output.dir", &output,
                "folder of the run: metrics.jsonl, config.ini, checkpoints/");
    options.add("data.stores", &stores, "latent stores to train on, comma separated");
    options.add("data.codec", &codec,
                "codec the stores were made with; copied into every checkpoint");
    options.add("data.eval_store", &eval_store,
                "latent store of held-out clips; empty = no evaluation");
    options.add("data.negative", &negative,
                "safetensors file with the text states of unconditional passes; empty = zeros");
    options.add("eval.every", &eval_every,
                "steps between camera-gap evaluations (one more at the end)");
    options.add("eval.clips", &eval_clips, "held-out clips that are judged");
    options.add("compare", &compare,
                "instead of training: lay this run over the reference curve of its recipe");
    options.add("reference", &reference,
                "curve to compare with; empty = recipes/MODEL/reference/STAGE.jsonl");
    options.add("write_reference", &write_reference,
                "with --compare: make the run the reference, in this file");
    options.add("probe.every", &probe_every,
                "steps between probe videos of fixed worlds and paths; 0 = none");
    probe.declare(options);
    mesh.declare(options);
    sharding.declare(options);
    run.train.declare(options);
    run.condition.declare(options);
    run.optimizer.declare(options);
    options.add("optimizer.critic_lr", &run.critic_lr,
                "learning rate of dmd's critic; 0 = optimizer.lr");
    run.ema.declare(options);
    run.health.declare(options);
    run.checkpoint.declare(options);
    stage.declare(options);
  }

  void validate() const {
    for (const auto& file : {codec, init, negative}) {
      require(file.empty() || fs::exists(file), "{}: does not exist", file);
    }
    stage.check(init, dry_run);
    require(!output.empty() || dry_run, "--output.dir is missing: the folder of the run");
    require(!stores.empty() || dry_run,
            "--data.stores is missing: latent stores made by minwm data");
    require(eval_every >= 0 && eval_clips >= 2,
            "eval.clips {}: expected 2 or more (each is judged with another's cameras)",
            eval_clips);
    require(eval_store.empty() || !codec.empty(),
            "--data.eval_store needs --data.codec: the gap is measured in pixels");
    sharding.check();
    require(run.optimizer.name != "muon" || !sharding.offloads("optimizer") || device == "cpu",
            "--parallel.offload optimizer needs --optimizer.name adamw: muon brings whole matrices "
            "together on the GPUs");
  }
};

using Stores = std::vector<std::shared_ptr<const data::LatentStore>>;

std::string shape_text(const data::StoreLayout& layout) {
  return fmt::format("{} x {} x {} x {} with text {} x {}", layout.frames, layout.channels,
                     layout.height, layout.width, layout.text_tokens, layout.text_dim);
}

Stores open_stores(const TrainCommand& command, const models::Backbone& model) {
  const Stores stores = data::open_stores(command.stores);
  const std::string codec = command.codec.empty() ? "" : models::open_codec(command.codec)->name();
  for (const auto& store : stores) {
    const std::string path = store->path().string();
    const auto& layout = store->layout();
    const auto& expected = stores.front()->layout();
    require(shape_text(layout) == shape_text(expected), "{}: its clips are {}, those of {} are {}",
            path, shape_text(layout), command.stores.front(), shape_text(expected));
    require(codec.empty() || layout.codec == codec,
            "{}: was encoded by codec '{}', --data.codec {} is '{}'", path, layout.codec,
            command.codec, codec);
    require(layout.channels == model.latent_channels() && layout.text_dim == model.text_dim(),
            "{}: {} latent channels and text of width {}; model '{}' takes {} and {}", path,
            layout.channels, layout.text_dim, command.model, model.latent_channels(),
            model.text_dim());
    command.stage.check_store(layout, path,
                              model.reads_first_latent() ? command.run.condition.first_frame : -1);
  }
  return stores;
}

/// What checkpoints of this run record, but for the step.
train::CheckpointInfo describe(const TrainCommand& command, const Stores& stores,
                               const std::string& config) {
  train::CheckpointInfo info;
  info.seed = static_cast<uint64_t>(command.seed);
  info.model = command.model;
  info.config = config;
  info.codec = fs::path(command.codec).filename().string();
  info.camera_cache = command.camera_cache;
  info.context_action = command.context_action;
  info.first_frame = command.run.condition.first_frame;
  command.stage.describe(info);
  if (!stores.empty()) {
    const auto& layout = stores.front()->layout();
    info.latent_frames = layout.frames;
    info.latent_height = layout.height;
    info.latent_width = layout.width;
    const at::Tensor intrinsics = stores.front()->read(0).intrinsics;
    info.fx = intrinsics[0][0].item<double>();
    info.fy = intrinsics[1][1].item<double>();
  }
  return info;
}

/// The checkpoint to continue from, if any; every byte of it was checked (collective).
std::optional<fs::path> resume_point(const TrainCommand& command, comm::Communicator& world) {
  if (command.resume == "none") {
    std::string held;
    if (world.rank() == 0) {
      if (const auto latest = train::latest_checkpoint(command.output)) {
        held = latest->filename().string();
      }
    }
    held = world.broadcast_string(held, 0, "checkpoint to resume");
    require(held.empty(),
            "{}: holds a run already ({}); continue it with --resume auto, or give another "
            "--output.dir",
            command.output, held);
    return std::nullopt;
  }
  if (command.resume == "auto") {
    return train::latest_valid_checkpoint(command.output, world);
  }
  require(fs::exists(command.resume), "--resume {}: does not exist", command.resume);
  const auto found = train::latest_valid_checkpoint(command.resume, world);
  require(found.has_value(), "--resume {}: holds no complete and undamaged checkpoint",
          command.resume);
  return found;
}

int64_t parameter_count(const models::Backbone& model) {
  int64_t count = 0;
  for (const auto& p : model.parameters()) {
    count += p.numel();
  }
  return count;
}

std::string mesh_text(const comm::Mesh& mesh) {
  const int context = mesh.context->size(), copy = mesh.parameters->size();
  return fmt::format("{} rank(s): replicate {} x shard {} x context {}{}", mesh.world->size(),
                     mesh.replicate->size(), copy / context, context,
                     mesh.ring->size() > 1 ? fmt::format(" (ulysses {} x ring {})",
                                                         mesh.ulysses->size(), mesh.ring->size())
                                           : "");
}

/// What --dry-run prints and the log shows at the start.
std::string summary(const TrainCommand& command, const comm::Mesh& mesh,
                    const models::Backbone& model, at::ScalarType compute) {
  const auto plan = train::plan_batch(command.run.train, mesh.data_size());
  return fmt::format(
      "mesh        {}\n"
      "model       {}, {} parameters, {} on {}, {} thread(s) per rank\n"
      "batch       {}\n"
      "run         {}, {} steps, {} clips in all\n",
      mesh_text(mesh), command.model, parameter_count(model),
      compute == at::kFloat ? "float32" : "bfloat16", command.device, at::get_num_threads(),
      plan.text(), command.stage.name(), command.run.train.steps,
      command.run.train.steps * command.run.train.global_batch);
}

train::RunParts assemble(const TrainCommand& command, const std::string& config,
                         const comm::Mesh& mesh, const std::shared_ptr<models::Backbone>& model,
                         const ModelFactory& factory, bool resumed) {
  train::RunParts parts;
  const auto negative = load_negative(command.negative);
  parts.stage = command.stage.make(
      {model, command.model, command.init, negative, command.codec, factory, resumed});
  parts.stores = open_stores(command, *model);
  if (!parts.stores.empty()) {
    require_negative_fits(negative, parts.stores.front()->layout(),
                          "--data.negative " + command.negative);
  }
  parts.info = describe(command, parts.stores, config);
  parts.info.mesh = mesh_text(mesh);
  if (!command.codec.empty()) {
    parts.attached = {command.codec};
  }
  if (!command.eval_store.empty() && command.eval_every > 0) {
    const train::GapEvaluationOptions options{command.eval_store,
                                              command.codec,
                                              command.eval_clips,
                                              {.causal = command.stage.causal(),
                                               .chunk_frames = command.stage.chunk_frames(),
                                               .seed = parts.info.seed,
                                               .first_frame = parts.info.first_frame > 0}};
    parts.evaluate = train::make_gap_evaluation(options, model, mesh);
  }
  require(command.probe_every == 0 || !command.codec.empty(),
          "--probe.every needs --data.codec: probes are videos");
  const bool writes = mesh.world->rank() == 0;
  if (command.probe_every > 0 && !command.dry_run && (writes || mesh.copy_size() > 1)) {
    // Ranks that share the weights generate together; the first one writes.
    parts.probe =
        make_probe(command.probe, model, command.codec, parts.info, command.output, writes);
  }
  return parts;
}

/// What the plan expects a rank to hold.
std::string memory_text(const TrainCommand& command, const comm::Mesh& mesh,
                        const train::CheckpointInfo& info, int64_t frame_tokens,
                        at::ScalarType compute) {
  if (info.latent_frames == 0) {
    return "memory      unknown without --data.stores (minwm plan estimates any clip)\n";
  }
  const auto batch = train::plan_batch(command.run.train, mesh.data_size());
  parallel::StepShape step;
  step.model = model_shape(command.model);
  step.device = parallel::device_kind("cpu");
  step.device.compute_bytes = compute == at::kFloat ? 4 : 2;
  step.stage = command.stage.name();
  step.frames = info.latent_frames;
  step.frame_tokens = frame_tokens;
  step.chunk_frames = std::max<int64_t>(1, command.stage.chunk_frames());
  step.window_frames = info.window_frames > 0 ? info.window_frames : info.latent_frames;
  step.global_batch = command.run.train.global_batch;
  step.micro_batch = batch.micro_batch;
  step.recompute = command.run.train.recompute;
  step.reduce_each = command.sharding.reduce == "each";
  step.prefetch = command.sharding.prefetch;
  step.averaged = command.run.ema.decay > 0;
  step.muon = command.run.optimizer.name == "muon";
  step.offload_optimizer = command.sharding.offloads("optimizer");
  step.offload_teacher = command.sharding.offloads("teacher");
  const auto memory =
      parallel::plan_memory(step, {mesh.replicate->size(), mesh.copy_size() / mesh.context->size(),
                                   mesh.context->size(), mesh.ulysses->size()});
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / 0x1p20; };
  return fmt::format(
      "memory      about {:.0f} MiB of tensors per rank: {:.0f} weights, gradients and moments, "
      "{:.0f} "
      "activations and buffers{}\n",
      mib(memory.total()), mib(memory.steady()), mib(memory.total() - memory.steady()),
      memory.host > 0 ? fmt::format("; {:.0f} in host memory", mib(memory.host)) : "");
}

int64_t tokens_per_clip(const models::Backbone& model, const train::CheckpointInfo& info) {
  const auto [height, width] = model.patch();
  return info.latent_frames * (info.latent_height / height) * (info.latent_width / width);
}

/// The network to train, with the weights it starts from.
std::shared_ptr<models::Backbone> first_weights(const TrainCommand& command,
                                                const ModelFactory& factory, bool resumed) {
  if (resumed) {
    return factory.make_empty(command.model, Role::kTrained);
  }
  if (command.init.empty() || command.dry_run) {
    return factory.make(command.model, Role::kTrained);
  }
  return factory.make_from(command.init, command.model, Role::kTrained, command.init_allows);
}

/// A run may change how its model streams; whoever did not mean to is told.
void compare_switches(const TrainCommand& command) {
  if (command.init.empty() || fs::path(command.init).extension() == ".safetensors") {
    return;
  }
  const train::Checkpoint from(train::checkpoint_folder(command.init));
  const auto warn = [&](const char* option, const std::string& theirs, const std::string& ours) {
    if (theirs != ours) {
      spdlog::warn("--init {}: was trained with {} = {}, this run has {}", from.path().string(),
                   option, theirs, ours);
    }
  };
  warn("model.camera_cache", from.info().camera_cache, command.camera_cache);
  warn("model.context_action", fmt::to_string(from.info().context_action),
       fmt::to_string(command.context_action));
}

int train_stage(TrainCommand command, const std::string& config, comm::World& world) {
  const train::StopSignals signals;
  command.stage.check_model(*models::make_hollow_backbone(command.model), command.model,
                            command.run.condition.first_frame,
                            !command.negative.empty() || command.dry_run);
  auto mesh = comm::make_mesh(world.communicator(), command.mesh);
  std::unique_ptr<train::Checkpoint> resumed;
  if (!command.dry_run) {
    if (const auto path = resume_point(command, *mesh.world)) {
      resumed = std::make_unique<train::Checkpoint>(*path, train::Checkpoint::Verify::kSkip);
      train::require_same_run(*resumed,
                              describe(command, {}, config));  // before a large model is built
    }
  }
  // A dry run holds nothing on a device, and need not be where one is.
  const auto device =
      command.dry_run ? c10::Device(c10::kCPU) : open_device(command.device, world.local_rank());
  mesh = comm::make_device_mesh(std::move(mesh), device);
  at::set_num_threads(
      static_cast<int>(train::thread_count(command.run.train.threads, world.local_size())));
  const models::StreamSwitches switches{command.camera_cache == "rope_only",
                                        command.context_action};
  const ModelFactory factory({mesh, device, train::compute_type(command.run.train.compute, device),
                              command.run.train.recompute, static_cast<uint64_t>(command.seed),
                              command.dry_run, switches, command.sharding});
  if (world.rank() == 0 && !resumed) {
    compare_switches(command);
  }
  const auto model = first_weights(command, factory, resumed != nullptr);
  std::string text = summary(command, mesh, *model, factory.setup().compute);
  train::RunParts parts = assemble(command, config, mesh, model, factory, resumed != nullptr);
  const int64_t clip_tokens = tokens_per_clip(*model, parts.info);
  text += memory_text(command, mesh, parts.info,
                      clip_tokens / std::max<int64_t>(1, parts.info.latent_frames),
                      factory.setup().compute);
  if (command.dry_run) {
    if (world.rank() == 0) {
      fmt::print("{}\n{}", config, text);
    }
    return kExitDone;
  }
  command.run.output = command.output;
  command.run.eval_every = command.eval_every;
  command.run.probe_every = command.probe_every;
  command.run.tokens_per_clip = clip_tokens;
  train::TrainingRun run(command.run, std::move(parts), mesh);
  spdlog::info("\n{}", text);
  if (resumed) {
    run.resume(*resumed);
    spdlog::info("continuing after step {}", run.step());
    resumed.reset();
  }
  if (world.rank() == 0) {
    atomic_write(fs::path(command.output) / "config.ini", config);
  }
  const bool done = run.run(signals);
  spdlog::info("{} {}", done ? "done: step" : "stopped on request; checkpoint of step", run.step());
  return done ? kExitDone : kExitStopped;
}

int train_command(comm::World& world, int argc, char** argv) {
  TrainCommand command;
  Options parser("minwm train",
                 "Trains one stage. mpirun -n N shares every step's clips out over N ranks.");
  command.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  if (!command.compare.empty()) {
    require(world.size() == 1, "--compare runs on one rank, not on {}", world.size());
    return command.write_reference.empty()
               ? compare_runs(command.compare, command.reference)
               : write_reference(command.compare, command.write_reference);
  }
  command.validate();
  try {
    return train_stage(command, parser.to_ini(), world);
  } catch (const train::AgreedError&) {
    if (world.rank() != 0) {
      world.communicator()->barrier("the end of the job");  // rank 0 speaks for all, and ends it
    }
    throw;
  }
}

const bool registered = register_command(
    "train", "trains one stage from an INI file; mpirun -n N shares it out", train_command);

}  // namespace
}  // namespace minwm::apps
