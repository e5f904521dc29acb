#include "probe.h"

#include <spdlog/spdlog.h>

#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/data/synth.h"
#include "minwm/data/video.h"
#include "minwm/eval/contact_sheet.h"
#include "walks.h"

namespace minwm::apps {
namespace {

constexpr int64_t kFirstWorld = 900000;  // held out: no data set reaches it
constexpr int64_t kManySteps = 16;       // enough to see what a many-step model has learned

/// The model in eval state, and as it was afterwards.
class Resting {
 public:
  explicit Resting(models::Backbone& model) : model_(model), training_(model.is_training()) {
    model_.eval();
  }
  ~Resting() { model_.train(training_); }
  Resting(const Resting&) = delete;
  Resting& operator=(const Resting&) = delete;

 private:
  models::Backbone& model_;
  bool training_;
};

struct ProbedWorld {
  int64_t seed;
  std::shared_ptr<const data::World> world;
  at::Tensor truth;  // uint8 [F, H, W, 3]
};

stream::LoadedModel describe_model(std::shared_ptr<models::Backbone> model,
                                   const std::filesystem::path& codec,
                                   const train::CheckpointInfo& info) {
  stream::SamplerOverrides overrides;
  if (info.step_list.empty()) {
    overrides.steps = kManySteps;
    overrides.solver = "euler";
  }
  stream::LoadedModel loaded;
  loaded.model = std::move(model);
  loaded.codec = models::open_codec(codec);
  loaded.info = info;
  loaded.mode =
      info.stage == "bidirectional" ? stream::Mode::kBidirectional : stream::Mode::kStream;
  loaded.stream = stream::stream_options(info, overrides, "probe");
  return loaded;
}

class Probe {
 public:
  Probe(const ProbeOptions& options, stream::LoadedModel loaded, std::filesystem::path output,
        bool writes)
      : loaded_(std::move(loaded)), folder_(std::move(output)), writes_(writes) {
    require(options.worlds >= 1, "--probe.worlds {}: expected 1 or more", options.worlds);
    walks_ = parse_walks(options.paths, loaded_.info.latent_frames, "probe.paths");
    style_ = world_style(loaded_.info, *loaded_.codec, options.style);
    for (int64_t i = 0; i < options.worlds; ++i) {
      const int64_t seed = kFirstWorld + i;
      auto world = data::make_world(static_cast<uint64_t>(seed), style_);
      world_text(*loaded_.model, *world, "probe");
      at::Tensor truth = exact_video(*loaded_.codec, *world, walks_.front(), style_);
      worlds_.push_back({seed, std::move(world), std::move(truth)});
    }
  }

  void write(int64_t step) const {
    const Resting resting(*loaded_.model);
    std::vector<eval::SheetRow> rows;
    for (const auto& world : worlds_) {
      rows.push_back({fmt::format("exact {}", walks_.front().name), world.truth});
      const auto videos = walk_videos(loaded_, *world.world, style_, walks_);
      for (size_t k = 0; k < walks_.size(); ++k) {
        rows.push_back({walks_[k].name, videos[k]});
      }
    }
    if (!writes_) {
      return;
    }
    eval::ContactSheetOptions options;
    options.caption = fmt::format("{} {}, step {}: {}", loaded_.info.model, loaded_.info.stage,
                                  step, describe_sampler(loaded_));
    const auto file = folder_ / fmt::format("step-{:06}.png", step);
    data::write_image(file, eval::contact_sheet(rows, options));
    options.columns = static_cast<int64_t>(1 + walks_.size());  // a world per line
    data::write_video(std::filesystem::path(file).replace_extension(".mp4"),
                      eval::tiled_video(rows, options), data::kSynthFps);
    spdlog::info("probe {}", file.string());
  }

 private:
  stream::LoadedModel loaded_;
  std::filesystem::path folder_;
  bool writes_;
  std::vector<Walk> walks_;
  data::WorldStyle style_;
  std::vector<ProbedWorld> worlds_;
};

}  // namespace

void ProbeOptions::declare(Options& options) {
  options.add("probe.worlds", &worlds, "held-out worlds that probes walk through");
  options.add("probe.paths", &paths,
              "their paths: keys held to the end, or NAME=POSES with ; between the pieces");
  options.add_choice("probe.style", &style, {"detail", "standard"}, "kind of the worlds");
}

std::function<void(int64_t step)> make_probe(const ProbeOptions& options,
                                             std::shared_ptr<models::Backbone> model,
                                             const std::filesystem::path& codec,
                                             const train::CheckpointInfo& info,
                                             const std::filesystem::path& output, bool writes) {
  require(!codec.empty(), "probes need --data.codec: they are pictures");
  const auto probe = std::make_shared<const Probe>(
      options, describe_model(std::move(model), codec, info), output / "probes", writes);
  return [probe](int64_t step) { probe->write(step); };
}

}  // namespace minwm::apps
