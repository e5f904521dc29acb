#pragma once
// The whole chain of stages, as small as it runs.

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "minwm/core/hdf5.h"
#include "minwm/core/random.h"
#include "minwm/core/safetensors.h"
#include "tests/apps/small_model.h"

namespace minwm::testing {

/// A codec, clips, and one run of every stage that another starts from. Made once per process and
/// recipe.
class SmallChain {
 public:
  /// @param recipe  folder in recipes/; @param model  empty = that of the recipe.
  static const SmallChain& get(const std::string& recipe = "wan-tiny",
                               const std::string& model = "") {
    static std::map<std::string, std::unique_ptr<const SmallChain>> chains;
    auto& chain = chains[recipe + " " + model];
    if (!chain) {
      chain.reset(new SmallChain(recipe, model));
    }
    return *chain;
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  /// minwm train of a stage's recipe, small.
  std::string train(const std::string& stage, const std::string& output, int steps) const {
    const auto& chain = *this;
    std::string inputs = " --data.stores " + chain.path(stage == "ode" ? "pairs.h5" : "clips.h5");
    if (stage != "bidirectional") {
      inputs += " --init " + chain.path(stage == "teacher-forcing" ? "bidirectional"
                                        : stage == "dmd"           ? "consistency"
                                                                   : "teacher-forcing");
    }
    if (stage == "bidirectional" && std::filesystem::exists(chain.path("lively.safetensors"))) {
      inputs += " --init " + chain.path("lively.safetensors");
    }
    if (stage == "dmd") {
      inputs += " --dmd.scores " + chain.path("bidirectional");
    }
    return fmt::format(
        "train --config {}/recipes/{}/{}.ini --data.codec {} --train.steps {} "
        "--train.global_batch 2 --checkpoint.every 2 --output.dir {}{}{}",
        MINWM_SOURCE_DIR, recipe_, stage, chain.path("codec.safetensors"), steps, output, inputs,
        model_.empty() ? "" : " --model " + model_);
  }

 private:
  SmallChain(std::string recipe, std::string model)
      : recipe_(std::move(recipe)), model_(std::move(model)) {
    const std::string size = " --width 32 --height 32 --samples 1",
                      codec = path("codec.safetensors"), clips = path("clips.h5");
    done("data fit-codec --worlds 12 --check_worlds 1 --output " + codec + size);
    done("data synth --worlds 3 --latent_frames 8 --codec " + codec + " --store " + clips + size);
    done(train("bidirectional", path("first"), 1));
    lively_weights(path("first") + "/checkpoints/step-000001/state.h5", path("lively.safetensors"));
    done(train("bidirectional", path("bidirectional"), 2) + " --init " +
         path("lively.safetensors"));
    done(train("teacher-forcing", path("teacher-forcing"), 2));
    done(fmt::format("data ode-pairs --checkpoint {} --stores {} --store {} --steps 8 --clips 6{}",
                     path("teacher-forcing"), clips, path("pairs.h5"),
                     recipe_.starts_with("wan") ? " --clean_first 0.5" : ""));
    done(train("consistency", path("consistency"), 2));
    done(train("ode", path("ode"), 2));
    done(train("dmd", path("dmd"), 1));
  }
  /// A model begins with zeros (head, camera projections, gates, conditioning channels), behind
  /// which every error would hide.
  static void lively_weights(const std::string& from, const std::string& to) {
    const std::string group = "model/param/";
    const hdf5::File file(from, hdf5::File::Mode::kReadOnly);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& dataset : file.datasets()) {
      if (dataset.starts_with(group)) {
        const std::string name = dataset.substr(group.size());
        const at::Tensor values = file.read(dataset);
        const at::Tensor lively = 0.05 * random_normal(values.sizes(), {1, name});
        // One step of training has moved what has a gradient a little.
        tensors.emplace_back(
            name, values.dim() > 1 ? at::where(values.abs() < 1e-3, lively, values) : values);
      }
    }
    write_safetensors(to, tensors);
  }
  static void done(const std::string& arguments) {
    const Outcome outcome = run_minwm(arguments);
    require(outcome.code == kExitDone, "minwm {}: {}", arguments, outcome.err);
  }
  std::string recipe_, model_;
  TemporaryFolder folder_;
};

/// The lines of a run's metrics.jsonl.
inline std::vector<nlohmann::json> metrics(const std::filesystem::path& run) {
  std::ifstream in(run / "metrics.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    const auto parsed = nlohmann::json::parse(line, nullptr, false);
    if (parsed.is_object()) {
      lines.push_back(parsed);
    }
  }
  return lines;
}

/// Test parameters: every stage, and its name where only letters may stand.
inline auto every_stage() {
  return ::testing::Values("bidirectional", "teacher-forcing", "consistency", "ode", "dmd");
}
inline std::string stage_name(const ::testing::TestParamInfo<std::string>& stage) {
  std::string name = stage.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace minwm::testing
