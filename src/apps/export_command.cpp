// minwm export: the weights of a checkpoint that generation uses, alone and in half precision: what
// is shipped and served.

#include <filesystem>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/models/codec/codec.h"
#include "minwm/train/checkpoint.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;

struct ExportOptions {
  std::string checkpoint, output, type = "float16", codec;
  void declare(Options& options) {
    options.add("checkpoint", &checkpoint, "checkpoint folder (a step, or a run: its newest step)");
    options.add("output", &output, "folder that gets step-NNNNNN; itself usable as --checkpoint");
    options.add_choice("type", &type, {"float16", "bfloat16", "float32"}, "type of the weights");
    options.add(
        "codec", &codec,
        "another file of the same codec, e.g. with a better decoder; empty = the checkpoint's");
  }
  at::ScalarType scalar_type() const {
    return type == "float16" ? at::kHalf : type == "bfloat16" ? at::kBFloat16 : at::kFloat;
  }
};

/// Averaged weights where there are such, in the wanted type.
train::TensorMap weights(const train::Checkpoint& checkpoint, at::ScalarType type) {
  const auto tensors = checkpoint.read_group(checkpoint.weights_group());
  train::TensorMap out;
  for (const auto& [name, tensor] : tensors) {
    require(tensor.isfinite().all().item<bool>(), "{}: parameter '{}' is not finite",
            checkpoint.path().string(), name);
    const at::Tensor converted = tensor.to(type);
    require(converted.isfinite().all().item<bool>(),
            "{}: parameter '{}' does not fit --type {}: use bfloat16 or float32",
            checkpoint.path().string(), name, toString(type));
    // Checksums are over whole 32-bit words.
    out["model/param/" + name] = converted.nbytes() % 4 == 0 ? converted : tensor;
  }
  return out;
}

int export_checkpoint(comm::World& world, int argc, char** argv) {
  ExportOptions options;
  Options parser("minwm export",
                 "A checkpoint's averaged weights and codec alone, without optimizer state.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(!options.checkpoint.empty(), "--checkpoint is missing: the folder of a trained model");
  require(!options.output.empty(), "--output is missing: the folder to write to");
  require(world.size() == 1, "minwm export runs on one rank, not on {}", world.size());
  const train::Checkpoint checkpoint(options.checkpoint);
  auto info = checkpoint.info();
  fs::path codec = info.codec.empty() ? fs::path() : checkpoint.path() / info.codec;
  if (!options.codec.empty()) {
    require(!codec.empty(), "--codec {}: {} has none to replace", options.codec,
            checkpoint.path().string());
    const auto wanted = models::open_codec(codec)->name(),
               given = models::open_codec(options.codec)->name();
    require(wanted == given, "--codec {}: is codec '{}', the model was trained with '{}'",
            options.codec, given, wanted);
    codec = options.codec;
    info.codec = codec.filename().string();
  }
  std::vector<fs::path> attached;
  if (!codec.empty()) {
    attached.push_back(codec);
  }
  const auto written =
      train::save_checkpoint(options.output, info, weights(checkpoint, options.scalar_type()),
                             attached, 1, *world.communicator());
  fmt::print("{}\n", written.string());
  return kExitDone;
}

const bool registered =
    register_command("export", "a checkpoint's weights alone, in half precision, to ship or serve",
                     export_checkpoint);

}  // namespace
}  // namespace minwm::apps
