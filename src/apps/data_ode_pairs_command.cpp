// minwm data ode-pairs: the clips of latent stores and a teacher → a store of ODE trajectories.

#include <algorithm>
#include <set>

#include <spdlog/fmt/ranges.h>

#include "command.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/core/random.h"
#include "minwm/data/loader.h"
#include "minwm/data/provenance.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/ode_pairs.h"
#include "minwm/stream/loaded_model.h"
#include "minwm/train/plan.h"
#include "provenance.h"
#include "stage_options.h"

namespace minwm::apps {
namespace {

/// A rank that is done early waits for the others at the end; one that fails ends the job anyway.
constexpr double kPatience = 7 * 24 * 3600;

using Stores = std::vector<std::shared_ptr<const data::LatentStore>>;

struct OdePairsCommand {
  std::string checkpoint, store, negative, mode = "cached", device = "cpu", compute = "auto";
  std::vector<std::string> stores;
  std::vector<double> step_list;
  int64_t clips = 0, steps = 48, batch = 8, seed = 0, threads = 0;
  double guidance = 1, clean_first = 0;
  bool first_frame = true;

  void declare(Options& options) {
    options.add("checkpoint", &checkpoint,
                "the teacher: a run or step folder of stage teacher-forcing");
    options.add("stores", &stores, "latent stores with the clips, comma separated");
    options.add("store", &store, "latent store (HDF5) to write");
    options.add("clips", &clips, "how many clips, spread evenly over the stores; 0 = all");
    options.add("steps", &steps, "Euler steps of a trajectory; must meet every level of the list");
    options.add("step_list", &step_list,
                "timesteps before the shift at which states are kept; empty = the checkpoint's "
                "sampler.step_list, or 1000,750,500,250");
    options.add("guidance", &guidance,
                "guidance scale, u + g (c - u); 1 = one pass without guidance");
    options.add("negative", &negative,
                "safetensors file with the text states of the unconditional pass: text [L, D]; "
                "empty = zeros");
    options.add_choice("mode", &mode, {"cached", "full"},
                       "cached: chunk by chunk over the cache of the clean past; full: a "
                       "teacher-forcing pass per step; the same up to rounding");
    options.add("clean_first", &clean_first,
                "share of clips whose first latent is given to the teacher: as it was trained "
                "(teacher_forcing.clean_first)");
    options.add("first_frame", &first_frame,
                "hy models: the teacher is told every clip's first latent through its conditions "
                "(condition.first_frame of stage ode must say the same: 1 or 0)");
    options.add("batch", &batch, "clips side by side on a rank");
    options.add("seed", &seed, "of the noise");
    options.add("device", &device, "cpu or cuda");
    options.add_choice("compute", &compute, {"auto", "float32", "bfloat16"},
                       "type of matrix products and attention");
    options.add("threads", &threads, "per rank; 0 = OMP_NUM_THREADS, or the cores shared out");
  }

  void validate() const {
    require(!checkpoint.empty(),
            "--checkpoint is missing: a run of minwm train --stage "
            "teacher-forcing");
    require(!stores.empty(), "--stores is missing: latent stores made by minwm data");
    require(!store.empty(), "--store is missing: the latent store to write");
    require(clips >= 0, "--clips {}: expected 1 or more, or 0 for all", clips);
    require(steps >= 1, "--steps {}: expected 1 or more", steps);
    require(batch >= 1, "--batch {}: expected 1 or more", batch);
    require(clean_first >= 0 && clean_first <= 1, "--clean_first {}: expected a share in 0 … 1",
            clean_first);
    require(std::find(stores.begin(), stores.end(), store) == stores.end(),
            "--store {}: is one of --stores", store);
  }
};

/// The clips that get a trajectory: evenly spread over the concatenation of the stores.
class Selection {
 public:
  Selection(Stores stores, int64_t clips) : stores_(std::move(stores)) {
    for (const auto& other : stores_) {
      const auto& first = *stores_.front();
      const auto& layout = other->layout();
      require(data::describe(layout) == data::describe(first.layout()),
              "{} holds {}, but {} holds {}: stores that are read together must agree",
              first.path().string(), data::describe(first.layout()), other->path().string(),
              data::describe(layout));
      total_ += other->size();
    }
    clips_ = clips == 0 ? total_ : clips;
    require(clips_ <= total_, "--clips {}: the stores hold {} clips", clips, total_);
    std::set<std::string> ids;
    for (int64_t i = 0; i < clips_; ++i) {
      require(ids.insert(sample_id(i)).second, "--stores: clip '{}' is there twice", sample_id(i));
    }
  }
  int64_t size() const { return clips_; }
  const data::StoreLayout& layout() const { return stores_.front()->layout(); }
  /// Place of clip i in the concatenation: the address of its random draws, whatever --clips.
  int64_t address(int64_t i) const { return i * total_ / clips_; }
  const std::string& sample_id(int64_t i) const {
    const auto [store, index] = find(i);
    return store->sample_id(index);
  }
  data::Clip read(int64_t i) const {
    const auto [store, index] = find(i);
    return store->read(index);
  }
  /// A digest of which clips of which data sets these are.
  std::string digest() const {
    std::string text;
    for (const auto& store : stores_) {
      text += store->layout().provenance + fmt::format("\n{}\n", store->size());
    }
    return fmt::format("{:016x}", stream_key({.purpose = text}));
  }

 private:
  std::pair<const data::LatentStore*, int64_t> find(int64_t i) const {
    int64_t index = address(i);
    auto store = stores_.begin();
    for (; index >= (*store)->size(); ++store) {
      index -= (*store)->size();
    }
    return {store->get(), index};
  }
  Stores stores_;
  int64_t total_ = 0, clips_ = 0;
};

/// What decides about the trajectories, from the checkpoint and the command line.
struct Plan {
  stages::OdePairOptions pairs;
  std::vector<double> step_list;
  models::Conditions negative;
};

/// @throws Error unless the checkpoint is a teacher and its step list fits the solver's steps.
Plan make_plan(const OdePairsCommand& command, const train::Checkpoint& checkpoint) {
  const train::CheckpointInfo& info = checkpoint.info();
  require(info.stage == "teacher-forcing",
          "{}: a checkpoint of stage '{}' is no teacher of ODE pairs: minwm train --stage "
          "teacher-forcing --init RUN makes one",
          checkpoint.path().string(), info.stage);
  Plan plan;
  plan.step_list = !command.step_list.empty() ? command.step_list
                   : !info.step_list.empty()  ? info.step_list
                                              : std::vector<double>{1000, 750, 500, 250};
  plan.pairs.steps = command.steps;
  plan.pairs.kept = stages::kept_steps(command.steps, plan.step_list);
  plan.pairs.shift = info.shift;
  plan.pairs.guidance_scale = command.guidance;
  plan.pairs.chunk_frames = info.chunk_frames;
  plan.pairs.cached = command.mode == "cached";
  plan.negative = load_negative(command.negative);
  return plan;
}

/// @throws Error naming the store if the teacher was trained on other latents.
void require_fits(const Selection& clips, const OdePairsCommand& command, const Plan& plan,
                  const stream::LoadedModel& teacher) {
  const auto& layout = clips.layout();
  const auto& info = teacher.info;
  require(layout.codec == teacher.codec->name(),
          "{}: was encoded by codec '{}', the teacher {} was trained with '{}'",
          command.stores.front(), layout.codec, command.checkpoint, teacher.codec->name());
  require(layout.frames == info.latent_frames && layout.height == info.latent_height &&
              layout.width == info.latent_width &&
              layout.channels == teacher.model->latent_channels() &&
              layout.text_dim == teacher.model->text_dim(),
          "{}: holds {}; the teacher {} was trained on latents {}x{}x{}x{} with text of width {}",
          command.stores.front(), data::describe(layout), command.checkpoint, info.latent_frames,
          teacher.model->latent_channels(), info.latent_height, info.latent_width,
          teacher.model->text_dim());
  require(layout.frames % info.chunk_frames == 0,
          "{}: clips of {} latents are not a multiple of the teacher's chunk of {}",
          command.stores.front(), layout.frames, info.chunk_frames);
  require_negative_fits(plan.negative, layout, "--negative " + command.negative);
}

/// @throws Error if first frames are to be given in another way than the teacher reads them, or
/// guidance needs a text that is not there.
void require_told(const OdePairsCommand& command, const stream::LoadedModel& teacher) {
  const auto& model = *teacher.model;
  require(!model.reads_first_latent() || command.clean_first == 0,
          "--clean_first {}: the teacher '{}' is given first frames through its conditions: use "
          "--first_frame",
          command.clean_first, teacher.info.model);
  require(model.reads_first_latent() || command.first_frame,
          "--first_frame false: the teacher '{}' is given first frames clean in the sequence: use "
          "--clean_first",
          teacher.info.model);
  require(command.guidance == 1 || !command.negative.empty() || !needs_negative(model),
          "--negative is missing: --guidance {} asks the teacher '{}' without its text, and zeros "
          "are no empty prompt to its text encoder",
          command.guidance, teacher.info.model);
}

/// A digest of float32 tensors: the same on any number of threads.
std::string digest_of(const std::vector<at::Tensor>& tensors) {
  uint64_t digest = 0;
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor bits =
        tensor.detach().to(at::kCPU).contiguous().view(-1).view(at::kInt).to(at::kLong);
    const at::Tensor place = at::arange(bits.numel(), at::kLong) * 2 + 1;
    digest = mix64(digest + static_cast<uint64_t>((bits * place).sum().item<int64_t>()));
  }
  return fmt::format("{:016x}", digest);
}

std::string provenance_of(const OdePairsCommand& command, const Plan& plan, const Selection& clips,
                          const stream::LoadedModel& teacher) {
  const auto& text = plan.negative.text;
  const std::string negative = text.defined() ? digest_of({text}) : "";
  nlohmann::ordered_json options = {{"teacher", digest_of(teacher.model->parameters())},
                                    {"teacher_step", teacher.info.step},
                                    {"clips", clips.digest()},
                                    {"count", clips.size()},
                                    {"steps", command.steps},
                                    {"step_list", plan.step_list},
                                    {"shift", plan.pairs.shift},
                                    {"chunk_frames", plan.pairs.chunk_frames},
                                    {"guidance", command.guidance},
                                    {"negative", negative},
                                    {"mode", command.mode},
                                    {"clean_first", command.clean_first},
                                    {"seed", command.seed}};
  if (teacher.model->reads_first_latent()) {
    options["first_frame"] = command.first_frame ? 1 : 0;
  }
  return apps::provenance("data ode-pairs", options);
}

/// Makes trajectories batch by batch. A batch always holds the same clips, so that its numbers do
/// not depend on what a killed run had finished, or on the number of ranks.
class Generator {
 public:
  Generator(const OdePairsCommand& command, const Plan& plan, const Selection& clips,
            models::Backbone& teacher)
      : command_(command), plan_(plan), clips_(clips), teacher_(teacher) {}

  /// Clips first … first + count - 1 with their trajectories, on the CPU.
  std::vector<data::Clip> make(int64_t first, int64_t count) const {
    std::vector<data::Clip> clips;
    std::vector<at::Tensor> latents, noise, text, cameras, intrinsics;
    const auto seed = static_cast<uint64_t>(command_.seed);
    for (int64_t i = first; i < first + count; ++i) {
      data::Clip clip = clips_.read(i);
      const auto address = static_cast<uint64_t>(clips_.address(i));
      const double draw = random_uniform({seed, "ode.given", 0, address});
      clip.given = draw < command_.clean_first ? 1 : 0;
      latents.push_back(clip.latents);
      noise.push_back(random_normal(clip.latents.sizes(), {seed, "ode.noise", 0, address}));
      text.push_back(clip.text);
      cameras.push_back(clip.world_to_camera);
      intrinsics.push_back(clip.intrinsics.unsqueeze(0).expand({clip.latents.size(0), 3, 3}));
      clips.push_back(std::move(clip));
    }
    const at::Device device = teacher_.parameters().front().device();
    stages::OdePairInput input;
    input.clean = at::stack(latents).to(device);
    input.noise = at::stack(noise).to(device);
    input.conditions.text = at::stack(text).to(device);
    input.conditions.cameras = {at::stack(cameras).to(device), at::stack(intrinsics).to(device)};
    input.conditions = models::conditions_for(
        teacher_, input.conditions,
        command_.first_frame ? input.clean.narrow(1, 0, 1) : at::Tensor(), input.clean.size(1));
    input.negative = plan_.negative.to(device);
    input.given = at::empty({count}, at::kLong);
    for (int64_t i = 0; i < count; ++i) {
      input.given[i] = clips[static_cast<size_t>(i)].given;
    }
    const at::Tensor states = stages::ode_pairs(teacher_, input, plan_.pairs).to(at::kCPU);
    for (int64_t i = 0; i < count; ++i) {
      clips[static_cast<size_t>(i)].ode_states = states[i];
    }
    return clips;
  }

 private:
  const OdePairsCommand& command_;
  const Plan& plan_;
  const Selection& clips_;
  models::Backbone& teacher_;
};

/// Fills the store: every rank its share of the batches that have something missing (collective).
void fill(const OdePairsCommand& command, const Selection& clips, const Generator& generator,
          const data::StoreLayout& layout, const std::shared_ptr<comm::Communicator>& world) {
  data::LatentStoreWriter writer(command.store, layout, clips.size(), world);
  std::vector<int64_t> pending;  // first clips of batches; the same on all ranks
  int64_t missing = 0;
  for (int64_t first = 0; first < clips.size(); first += command.batch) {
    const int64_t before = missing;
    for (int64_t i = first; i < std::min(first + command.batch, clips.size()); ++i) {
      missing += writer.complete(i, clips.sample_id(i)) ? 0 : 1;
    }
    if (missing > before) {
      pending.push_back(first);
    }
  }
  Progress progress("ode pairs", clips.size(), "clips", world->rank() == 0);
  progress.update(clips.size() - missing);
  int64_t done = 0;
  for (auto b = static_cast<size_t>(world->rank()); b < pending.size();
       b += static_cast<size_t>(world->size())) {
    const int64_t first = pending[b], count = std::min(command.batch, clips.size() - first);
    const std::vector<data::Clip> made = generator.make(first, count);
    for (int64_t i = 0; i < count; ++i) {
      if (!writer.complete(first + i)) {
        writer.write(first + i, made[static_cast<size_t>(i)]);
        ++done;
      }
    }
    // The others are about as far.
    progress.update(clips.size() - missing + std::min(done * world->size(), missing));
  }
  writer.close();
}

int ode_pairs(comm::World& world, int argc, char** argv) {
  OdePairsCommand command;
  Options parser("minwm data ode-pairs",
                 "Makes the trajectories that minwm train --stage ode learns from: the teacher's "
                 "ODE from noise to clean, with the real clip as the past of every chunk. Killed, "
                 "the same command continues; mpirun -n N shares the work.");
  command.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  command.validate();
  const Plan plan = make_plan(command, train::Checkpoint(command.checkpoint));
  const Selection clips(data::open_stores(command.stores), command.clips);
  const auto device = open_device(command.device, world.local_rank());
  at::set_num_threads(static_cast<int>(train::thread_count(command.threads, world.size())));
  const auto teacher = stream::open_model(command.checkpoint, {}, device);
  teacher.model->set_compute_dtype(train::compute_type(command.compute, device));
  require_fits(clips, command, plan, teacher);
  require_told(command, teacher);
  data::StoreLayout layout = clips.layout();
  layout.ode_sigmas = diffusion::few_step_sigmas(plan.step_list, plan.pairs.shift);
  layout.provenance = provenance_of(command, plan, clips, teacher);
  const auto communicator = world.communicator();
  communicator->set_timeout(kPatience);
  data::require_same_provenance(command.store, layout.provenance);
  communicator->barrier("check store");
  fill(command, clips, Generator(command, plan, clips, *teacher.model), layout, communicator);
  if (world.rank() == 0) {
    fmt::print("{}: trajectories of {} clips at sigma {:g}\n", command.store, clips.size(),
               fmt::join(layout.ode_sigmas, ", "));
  }
  return kExitDone;
}

const bool registered =
    register_command("data ode-pairs", "makes the ODE trajectories of a teacher", ode_pairs);

}  // namespace
}  // namespace minwm::apps
