#include "stage_options.h"

#include <algorithm>
#include <filesystem>

#include <spdlog/spdlog.h>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/safetensors.h"
#include "minwm/models/codec/codec.h"
#include "minwm/models/state.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kStages = {"bidirectional", "teacher-forcing", "ode", "consistency",
                                          "dmd"};

/// What a stage can start from, best first.
std::vector<std::string> sources_of(const std::string& stage) {
  if (stage == "bidirectional") {
    return {"bidirectional"};
  }
  if (stage == "teacher-forcing") {
    return {"bidirectional", "teacher-forcing"};
  }
  if (stage == "dmd") {
    return {"consistency", "ode", "dmd", "teacher-forcing"};
  }
  return {"teacher-forcing", stage};
}

bool is_safetensors(const fs::path& path) {
  return path.extension() == ".safetensors";
}

train::Checkpoint open(const std::string& path) {
  const fs::path given(path);
  return train::Checkpoint(given.filename() == "state.h5" ? given.parent_path() : given);
}

}  // namespace

models::Conditions load_negative(const std::string& file) {
  models::Conditions negative;
  if (file.empty()) {
    return negative;
  }
  const Safetensors tensors{fs::path(file)};
  auto read = [&](const std::string& name, int64_t dims) {
    if (!tensors.contains(name)) {
      return at::Tensor();
    }
    const at::Tensor tensor = tensors.get(name).to(at::kFloat);
    return tensor.dim() < dims ? tensor.unsqueeze(0) : tensor;
  };
  negative.text = read("text", 3);
  negative.text_mask = read("text_mask", 2);
  negative.byt5 = read("byt5", 3);
  negative.byt5_mask = read("byt5_mask", 2);
  require(negative.text.defined(), "{}: holds no tensor 'text'", file);
  return negative;
}

void StageOptions::declare(Options& options) {
  options.add("stage", &stage_, "bidirectional, teacher-forcing, ode, consistency or dmd");
  options.add("sampler.solver", &solver_,
              "how the trained model is to be sampled: renoise or euler; recorded (dmd: as its "
              "rollout)");
  options.add("sampler.step_list", &step_list_,
              "few-step timesteps before the shift, e.g. 1000,750,500,250; recorded (ode, dmd: as "
              "trained)");
  options.add("sampler.first_chunk_step_list", &first_chunk_step_list_,
              "the same for the first chunk; empty = as the others");
  options.add("consistency.teacher", &teacher_,
              "teacher-forcing checkpoint or run that is distilled; empty = that of --init");
  options.add("dmd.scores", &scores_,
              "bidirectional checkpoint or run: the real score, and what the critic starts from");
  bidirectional_.declare(options, "bidirectional", false);
  teacher_forcing_.declare(options, "teacher_forcing", true);
  consistency_.declare(options);
  ode_.declare(options);
  dmd_.declare(options);
}

void StageOptions::check(const std::string& init) const {
  const std::string nearest = nearest_name(stage_, kStages);
  require(!stage_.empty(),
          "--stage is missing: bidirectional, teacher-forcing, ode, consistency or dmd");
  require(std::find(kStages.begin(), kStages.end(), stage_) != kStages.end(),
          "--stage {}: expected bidirectional, teacher-forcing, ode, consistency or dmd{}", stage_,
          nearest.empty() ? "" : "; did you mean " + nearest + "?");
  require(solver_ == "euler" || solver_ == "renoise",
          "sampler.solver '{}': expected renoise or euler", solver_);
  const bool distills = stage_ == "ode" || stage_ == "consistency" || stage_ == "dmd";
  require(!distills || !init.empty(), "--init is missing: stage '{}' starts from a {} run", stage_,
          sources_of(stage_).front());
  require(stage_ != "dmd" || !scores_.empty(),
          "--dmd.scores is missing: the bidirectional run that judges the rollouts");
  require(stage_ != "consistency" || !step_list_.empty(),
          "--sampler.step_list is missing: the few steps the student is to be sampled with, e.g. "
          "1000,750,500,250");
  if (stage_ == "dmd") {
    dmd_.check();
  } else if (stage_ == "consistency") {
    consistency_.check();
  } else if (stage_ == "ode") {
    ode_.check();
  }
  if (!init.empty() && !is_safetensors(init)) {
    const auto checkpoint = open(init);
    const auto& from = checkpoint.info();
    const auto sources = sources_of(stage_);
    require(std::find(sources.begin(), sources.end(), from.stage) != sources.end(),
            "--init {}: was trained by stage '{}'; stage '{}' starts from a {} run",
            checkpoint.path().string(), from.stage, stage_, sources.front());
    if (stage_ == "dmd" && from.stage == "teacher-forcing") {
      spdlog::warn(
          "dmd from a teacher-forcing model tends to waxy textures: start from a consistency or "
          "ode "
          "run");
    }
  }
}

int64_t StageOptions::chunk_frames() const {
  return stage_ == "bidirectional"     ? 0
         : stage_ == "teacher-forcing" ? teacher_forcing_.chunk_frames
         : stage_ == "ode"             ? ode_.chunk_frames
         : stage_ == "consistency"     ? consistency_.chunk_frames
                                       : dmd_.rollout.chunk_frames;
}

void StageOptions::describe(train::CheckpointInfo& info) const {
  info.stage = stage_;
  info.sampler = solver_;
  info.step_list = step_list_;
  info.first_chunk_step_list = first_chunk_step_list_;
  info.chunk_frames = chunk_frames();
  if (stage_ == "bidirectional") {
    info.shift = bidirectional_.shift;
  } else if (stage_ == "teacher-forcing") {
    info.shift = teacher_forcing_.shift;
  } else if (stage_ == "consistency") {
    info.shift = consistency_.shift;
  } else if (stage_ == "ode") {
    info.shift = ode_.levels.shift;
    info.step_list = ode_.step_list;
  } else {
    info.shift = dmd_.rollout.shift;
    info.sampler = dmd_.rollout.solver;
    info.step_list = dmd_.rollout.step_list;
    info.first_chunk_step_list = dmd_.rollout.first_chunk_step_list;
    info.context_noise = dmd_.rollout.context_noise;
    info.window_frames = dmd_.rollout.window_frames;
    info.sink_frames = dmd_.rollout.sink_frames;
  }
}

void StageOptions::check_store(const data::StoreLayout& layout, const std::string& path) const {
  if (stage_ == "ode") {
    stages::require_ode_levels(layout.ode_sigmas, ode_, path);
  }
  const int64_t chunk = chunk_frames();
  const std::string section = stage_ == "teacher-forcing" ? "teacher_forcing"
                              : stage_ == "dmd"           ? "rollout"
                                                          : stage_;
  require(chunk == 0 || layout.frames % chunk == 0,
          "{}: clips of {} latents are not a multiple of {}.chunk_frames {}", path, layout.frames,
          section, chunk);
}

std::shared_ptr<models::Backbone> StageOptions::constant_network(
    const std::string& path, const std::string& purpose, const std::string& wanted_stage,
    const ModelFactory& factory) const {
  const auto checkpoint = open(path);
  require(checkpoint.info().stage == wanted_stage,
          "{} {}: was trained by stage '{}', expected a {} run", purpose,
          checkpoint.path().string(), checkpoint.info().stage, wanted_stage);
  const auto weights = weights_of(path, checkpoint.info().model, factory.setup().mesh);
  return factory.make(checkpoint.info().model, Role::kFrozen, &weights);
}

std::shared_ptr<stages::Stage> StageOptions::make(const StageParts& parts) const {
  const auto& model = parts.model;
  auto with_negative = [&](auto options) {
    options.negative = parts.negative;
    return options;
  };
  if (stage_ == "bidirectional") {
    return std::make_shared<stages::Bidirectional>(model, with_negative(bidirectional_));
  }
  if (stage_ == "teacher-forcing") {
    return std::make_shared<stages::TeacherForcing>(model, with_negative(teacher_forcing_));
  }
  if (stage_ == "ode") {
    return std::make_shared<stages::OdeRegression>(model, with_negative(ode_));
  }
  if (stage_ == "consistency") {
    const auto teacher =
        constant_network(teacher_.empty() ? parts.init : teacher_, "--consistency.teacher",
                         "teacher-forcing", parts.factory);
    const auto average = parts.factory.make_empty(parts.preset, Role::kAveraged);
    return std::make_shared<stages::Consistency>(model, teacher, average,
                                                 with_negative(consistency_));
  }
  const auto real = constant_network(scores_, "--dmd.scores", "bidirectional", parts.factory);
  std::shared_ptr<models::Backbone> critic;
  if (parts.resumed) {
    critic = parts.factory.make_empty(parts.preset, Role::kTrained);
  } else {
    const auto weights = weights_of(scores_, parts.preset, parts.factory.setup().mesh);
    critic = parts.factory.make(parts.preset, Role::kTrained, &weights);
  }
  // Rollouts longer than the scores' clips are shortened, which takes the codec.
  const auto first_latent_of =
      parts.codec.empty() ? nullptr : stages::last_frame_encoder(models::open_codec(parts.codec));
  return std::make_shared<stages::Dmd>(model, critic, real, parts.negative, dmd_, first_latent_of);
}

}  // namespace minwm::apps
