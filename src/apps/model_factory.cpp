#include "model_factory.h"

#include <algorithm>
#include <filesystem>

#include <spdlog/spdlog.h>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/safetensors.h"
#include "minwm/models/hy/diffusers_names.h"
#include "minwm/parallel/context.h"
#include "minwm/parallel/sharded_model.h"
#include "minwm/train/model_source.h"

namespace minwm::apps {

void ShardingOptions::declare(Options& options) {
  options.add("parallel.prefetch", &prefetch,
              "sharded units gathered ahead of their use; 0 = none");
  options.add_choice("parallel.reduce", &reduce, {"each", "last"},
                     "sharded gradients are reduced after each micro-batch (least memory), or once "
                     "per step (least traffic)");
  options.add("parallel.offload", &offload,
              "slices kept in host memory: optimizer (trained ones with their moments), teacher "
              "(frozen ones), or both");
}

bool ShardingOptions::offloads(const std::string& what) const {
  return std::find(offload.begin(), offload.end(), what) != offload.end();
}

void ShardingOptions::check() const {
  require(prefetch >= 0, "parallel.prefetch {}: expected 0 or more", prefetch);
  for (const auto& what : offload) {
    require(what == "optimizer" || what == "teacher",
            "parallel.offload {}: expected optimizer, teacher or both", what);
  }
}

namespace {

parallel::ShardOptions shard_options(const ModelFactory::Setup& setup, Role role) {
  const auto& sharding = setup.sharding;
  const bool frozen = role == Role::kFrozen;
  const bool offloaded = sharding.offloads(frozen ? "teacher" : "optimizer");
  parallel::ShardOptions options;
  options.compute = setup.compute;
  options.trained = role == Role::kTrained;
  options.masters = !frozen;
  options.recompute = setup.recompute;
  options.prefetch = sharding.prefetch;
  options.reduce_each = sharding.reduce == "each";
  options.device = setup.device;
  options.home = offloaded ? c10::Device(c10::kCPU) : setup.device;
  return options;
}

const char* role_name(Role role) {
  return role == Role::kTrained ? "trained" : role == Role::kAveraged ? "average" : "frozen";
}

/// " (NAME, …)" of the first name, if any.
std::string example(const std::vector<std::string>& names) {
  return names.empty() ? "" : fmt::format(" ({}{})", names.front(), names.size() > 1 ? ", …" : "");
}

}  // namespace

std::shared_ptr<models::Backbone> ModelFactory::make_empty(const std::string& preset,
                                                           Role role) const {
  const auto& mesh = setup_.mesh;
  require(setup_.sharding.offload.empty() || mesh.copy_size() > 1,
          "parallel.offload needs parallel.shard x parallel.context > 1: one rank holds all");
  auto model = models::make_hollow_backbone(preset);
  model->set_compute_dtype(setup_.compute);
  model->set_activation_checkpointing(setup_.recompute);
  model->set_stream_switches(setup_.switches);
  if (setup_.hollow) {
    return model;
  }
  if (mesh.copy_size() > 1) {
    model->set_unit_runner(std::make_shared<parallel::ShardedModel>(
        fmt::format("{} {}", role_name(role), preset), *model, model->units(), mesh,
        shard_options(setup_, role)));
  } else {
    at::NoGradGuard no_grad;
    for (auto& p : model->parameters()) {
      p.set_data(at::zeros(p.sizes(), p.options().device(setup_.device)));
    }
  }
  if (mesh.context->size() > 1) {
    model->set_context(std::make_shared<const parallel::Context>(mesh));
  }
  return model;
}

std::shared_ptr<models::Backbone> ModelFactory::make(const std::string& preset, Role role,
                                                     const models::ParameterSource* source) const {
  auto model = make_empty(preset, role);
  if (!setup_.hollow) {
    models::load_parameters(
        *model, source != nullptr ? *source : models::initial_parameters(*model, setup_.seed));
  }
  return model;
}

std::shared_ptr<models::Backbone> ModelFactory::make_from(const std::string& path,
                                                          const std::string& preset, Role role,
                                                          const models::Allowance& allowed) const {
  // Which differences are allowed says more than the model's name.
  const auto weights = weights_of(path, allowed.none() ? preset : "", setup_.mesh);
  auto model = make_empty(preset, role);
  const auto completed =
      models::complete(weights, models::initial_parameters(*model, setup_.seed), allowed);
  if (!setup_.hollow) {
    models::load_parameters(*model, completed.source);
  }
  if (!allowed.none()) {
    spdlog::info("{}: {} parameters keep their initial values{}, {} tensors are not read{}", path,
                 completed.initial.size(), example(completed.initial), completed.ignored.size(),
                 example(completed.ignored));
  }
  return model;
}

namespace {

models::ParameterSource safetensors_source(const std::string& path) {
  const auto file = std::make_shared<Safetensors>(path);
  models::ParameterSource source;
  source.where = path;
  for (const auto& name : file->names()) {
    source.shapes[name] = file->shape(name);
  }
  source.read = [file](const std::string& name, int64_t begin, int64_t count) {
    return file->view(name).view(-1).narrow(0, begin, count);
  };
  return models::has_diffusers_names(source) ? models::from_diffusers(source) : source;
}

}  // namespace

models::ParameterSource weights_of(const std::string& path, const std::string& preset,
                                   const comm::Mesh& mesh) {
  if (std::filesystem::path(path).extension() == ".safetensors") {
    return safetensors_source(path);
  }
  const auto checkpoint = std::make_shared<const train::Checkpoint>(train::checkpoint_folder(path));
  require(preset.empty() || checkpoint->info().model == preset,
          "{}: holds model '{}', expected '{}'", checkpoint->path().string(),
          checkpoint->info().model, preset);
  if (mesh.copy_size() > 1) {
    train::require_undamaged(checkpoint->path(), *mesh.world);
  }
  spdlog::info("weights of {}", checkpoint->path().string());
  return train::model_source(checkpoint);
}

}  // namespace minwm::apps
