#include "stage_options.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>
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
  return train::Checkpoint(train::checkpoint_folder(path));
}

/// --first_frame that a store's trajectories were made with; -1 of models that are told otherwise.
double recorded_first_frame(const std::string& provenance) {
  const auto document = nlohmann::json::parse(provenance, nullptr, false);
  const nlohmann::json none = nlohmann::json::object();
  return document.is_object() ? document.value("options", none).value("first_frame", -1.0) : -1;
}

}  // namespace

bool needs_negative(const models::Backbone& model) {
  constexpr int64_t kLanguageModelWidth = 3584;
  return model.reads_first_latent() && model.text_dim() == kLanguageModelWidth;
}

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
  // Batches of a store have no masks: rows that do not count are zero there, and so here.
  const auto zero_masked = [&](at::Tensor& rows, const at::Tensor& mask, const char* name) {
    if (rows.defined() && mask.defined()) {
      require(rows.dim() == 3 && mask.sizes() == rows.sizes().slice(0, 2),
              "{}: '{}_mask' and '{}' differ in shape", file, name, name);
      rows = rows * (mask != 0).to(rows.dtype()).unsqueeze(2);
    }
  };
  zero_masked(negative.text, negative.text_mask, "text");
  zero_masked(negative.byt5, negative.byt5_mask, "byt5");
  return negative;
}

void require_negative_fits(const models::Conditions& negative, const data::StoreLayout& layout,
                           const std::string& where) {
  const at::Tensor& text = negative.text;
  require(
      !text.defined() || text.sizes() == at::IntArrayRef({1, layout.text_tokens, layout.text_dim}),
      "{}: text of shape [{}], the stores hold {}x{}", where,
      text.defined() ? fmt::format("{}", fmt::join(text.sizes(), ", ")) : "", layout.text_tokens,
      layout.text_dim);
}

void StageOptions::declare(Options& options) {
  options.add("stage", &stage_, "bidirectional, teacher-forcing, ode, consistency or dmd");
  options.add("sampler.solver", &solver_,
              "how the trained model is to be sampled: renoise or euler; recorded (dmd: as its "
              "rollout)");
  options.add("sampler.shift", &sampler_shift_,
              "shift that a many-step model is to be sampled with; 0 = that of its training "
              "(HY: trained at 3, sampled at 5); recorded");
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

void StageOptions::check(const std::string& init, bool dry_run) const {
  const std::string nearest = nearest_name(stage_, kStages);
  require(!stage_.empty(),
          "--stage is missing: bidirectional, teacher-forcing, ode, consistency or dmd");
  require(std::find(kStages.begin(), kStages.end(), stage_) != kStages.end(),
          "--stage {}: expected bidirectional, teacher-forcing, ode, consistency or dmd{}", stage_,
          nearest.empty() ? "" : "; did you mean " + nearest + "?");
  require(solver_ == "euler" || solver_ == "renoise",
          "sampler.solver '{}': expected renoise or euler", solver_);
  require(sampler_shift_ >= 0, "sampler.shift {}: expected a positive number, or 0",
          sampler_shift_);
  const bool distills = stage_ == "ode" || stage_ == "consistency" || stage_ == "dmd";
  require(!distills || sampler_shift_ == 0,
          "sampler.shift {}: stage '{}' is sampled with the shift that it is trained with",
          sampler_shift_, stage_);
  require(!distills || !init.empty() || dry_run,
          "--init is missing: stage '{}' starts from a {} run", stage_, sources_of(stage_).front());
  require(stage_ != "dmd" || !scores_.empty() || dry_run,
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

StageOptions::Setting StageOptions::clean_first() const {
  if (stage_ == "bidirectional") {
    return {"bidirectional.clean_first", bidirectional_.clean_first};
  }
  if (stage_ == "teacher-forcing") {
    return {"teacher_forcing.clean_first", teacher_forcing_.clean_first};
  }
  if (stage_ == "consistency") {
    return {"consistency.clean_first", consistency_.clean_first};
  }
  return stage_ == "dmd" ? Setting{"dmd.clean_first", dmd_.clean_first} : Setting{};
}

StageOptions::Setting StageOptions::unconditional() const {
  std::vector<Setting> settings;
  if (stage_ == "bidirectional") {
    settings = {{"bidirectional.text_dropout", bidirectional_.text_dropout}};
  } else if (stage_ == "teacher-forcing") {
    settings = {{"teacher_forcing.text_dropout", teacher_forcing_.text_dropout}};
  } else if (stage_ == "ode") {
    settings = {{"ode.text_dropout", ode_.text_dropout}};
  } else if (stage_ == "consistency") {
    settings = {{"consistency.text_dropout", consistency_.text_dropout},
                {"consistency.guidance", consistency_.guidance - 1}};
  } else {
    // In the form c + g (c - u) 0 is off.
    const double off = dmd_.score.guidance_form == "plus" ? 0 : 1;
    settings = {{"dmd.real_guidance", dmd_.score.real_guidance - off},
                {"dmd.fake_guidance", dmd_.score.fake_guidance - off}};
  }
  for (const Setting& setting : settings) {
    if (setting.value != 0) {
      return setting;
    }
  }
  return {};
}

void StageOptions::check_model(const models::Backbone& model, const std::string& preset,
                               double first_frame, bool negative) const {
  const Setting clean = clean_first();
  require(first_frame >= 0 && first_frame <= 1, "condition.first_frame {}: expected a probability",
          first_frame);
  if (model.reads_first_latent()) {
    require(clean.value == 0,
            "{} {}: model '{}' is given first frames through its conditions, not clean in the "
            "sequence: use condition.first_frame",
            clean.name, clean.value, preset);
    require(stage_ != "ode" || first_frame == 0 || first_frame == 1,
            "condition.first_frame {}: the trajectories of stage ode were made with all first "
            "frames given, or with none: expected 1 or 0",
            first_frame);
  } else {
    require(first_frame == 1,
            "condition.first_frame {}: model '{}' is given first frames clean in the sequence: use "
            "{}",
            first_frame, preset,
            clean.name.empty() ? "--clean_first of minwm data ode-pairs" : clean.name);
  }
  const Setting without_text = unconditional();
  require(negative || without_text.name.empty() || !needs_negative(model),
          "--data.negative is missing: {} makes stage '{}' ask model '{}' without its text, and "
          "zeros are no empty prompt to its text encoder: a safetensors file with the encoded "
          "empty prompt (text, text_mask)",
          without_text.name, stage_, preset);
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
    info.shift = sampler_shift_ > 0 ? sampler_shift_ : bidirectional_.shift;
  } else if (stage_ == "teacher-forcing") {
    info.shift = sampler_shift_ > 0 ? sampler_shift_ : teacher_forcing_.shift;
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

void StageOptions::check_store(const data::StoreLayout& layout, const std::string& path,
                               double first_frame) const {
  if (stage_ == "ode") {
    stages::require_ode_levels(layout.ode_sigmas, ode_, path);
    const double made_with = recorded_first_frame(layout.provenance);
    require(first_frame < 0 || made_with < 0 || made_with == first_frame,
            "{}: its trajectories were made with --first_frame {}, condition.first_frame is {}",
            path, made_with, first_frame);
  }
  const int64_t chunk = chunk_frames();
  const std::string section = stage_ == "teacher-forcing" ? "teacher_forcing"
                              : stage_ == "dmd"           ? "rollout"
                                                          : stage_;
  require(chunk == 0 || layout.frames % chunk == 0,
          "{}: clips of {} latents are not a multiple of {}.chunk_frames {}", path, layout.frames,
          section, chunk);
}

std::shared_ptr<models::Backbone> StageOptions::constant_network(const std::string& path,
                                                                 const std::string& purpose,
                                                                 const std::string& wanted_stage,
                                                                 const StageParts& parts) const {
  const auto& factory = parts.factory;
  if (path.empty() && factory.setup().hollow) {
    return factory.make_empty(parts.preset, Role::kFrozen);
  }
  const auto checkpoint = open(path);
  require(checkpoint.info().stage == wanted_stage,
          "{} {}: was trained by stage '{}', expected a {} run", purpose,
          checkpoint.path().string(), checkpoint.info().stage, wanted_stage);
  const auto weights = weights_of(path, checkpoint.info().model, factory.setup().mesh);
  auto network = factory.make(checkpoint.info().model, Role::kFrozen, &weights);
  // A batch is told to all networks of a stage alike.
  const auto reads = [](const models::Backbone& model) {
    return fmt::format("{}cameras, {}actions, first frames {}", model.reads_cameras() ? "" : "no ",
                       model.reads_actions() ? "" : "no ",
                       model.reads_first_latent() ? "in the conditions" : "in the sequence");
  };
  require(reads(*network) == reads(*parts.model),
          "{} {}: model '{}' reads {}; '{}', which is trained, reads {}", purpose,
          checkpoint.path().string(), checkpoint.info().model, reads(*network), parts.preset,
          reads(*parts.model));
  return network;
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
    const auto teacher = constant_network(teacher_.empty() ? parts.init : teacher_,
                                          "--consistency.teacher", "teacher-forcing", parts);
    const auto average = parts.factory.make_empty(parts.preset, Role::kAveraged);
    return std::make_shared<stages::Consistency>(model, teacher, average,
                                                 with_negative(consistency_));
  }
  const auto real = constant_network(scores_, "--dmd.scores", "bidirectional", parts);
  std::shared_ptr<models::Backbone> critic;
  if (parts.resumed || (scores_.empty() && parts.factory.setup().hollow)) {
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
