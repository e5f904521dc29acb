// minwm data encode: a clip folder → a latent store.

#include <filesystem>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/core/random.h"
#include "minwm/data/encode.h"
#include "provenance.h"

namespace minwm::apps {
namespace {

/// A rank that is done early waits for the others at the end; one that fails ends the job anyway.
constexpr double kPatience = 7 * 24 * 3600;

struct EncodeCommand {
  std::string input, codec, output, fit = "crop";
  data::EncodeOptions encode;

  void declare(Options& options) {
    options.add("input", &input, "clip folder (minwm data import or synth)");
    options.add("codec", &codec, "codec file (minwm data fit-codec)");
    options.add("output", &output, "latent store (HDF5) to write");
    options.add("width", &encode.width, "pixels");
    options.add("height", &encode.height, "pixels");
    options.add_choice("fit", &fit, {"crop", "stretch"},
                       "crop: the middle of the right shape, scaled down by area, focal lengths "
                       "corrected; stretch: the reference's bilinear rule");
    options.add("latent_frames", &encode.latent_frames,
                "latent frames of the store; longer clips are cut; 0 = what most clips have");
  }

  /// The manifest's content counts: cameras, captions and frames are all in it.
  std::string provenance() const {
    const auto manifest = data::manifest_path(input);
    const std::string clips = std::filesystem::exists(manifest) ? read_file(manifest) : "";
    const uint64_t hash = stream_key({.purpose = clips});
    return apps::provenance("data encode", {{"clips", fmt::format("{:016x}", hash)},
                                            {"width", encode.width},
                                            {"height", encode.height},
                                            {"fit", fit},
                                            {"latent_frames", encode.latent_frames}});
  }
};

/// Prints what is in the finished store. @throws Error if nothing is.
void summarize(const EncodeCommand& options) {
  const data::LatentStore store(options.output);
  const auto failures = store.failures();
  fmt::print("{}: {} clips encoded, {} failed\n", options.output, store.size(), failures.size());
  require(store.size() > 0, "{}: no clip could be encoded; the first: {}", options.input,
          failures.empty() ? "there is none" : failures.front().reason);
}

int encode(comm::World& world, int argc, char** argv) {
  EncodeCommand options;
  Options parser(
      "minwm data encode",
      "Turns a clip folder into latents. Killed, the same command continues; mpirun -n N "
      "shares the work. A clip that cannot be read is recorded and left out.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(!options.input.empty(), "--input is missing: the clip folder");
  require(!options.codec.empty(), "--codec is missing: the file that minwm data fit-codec wrote");
  require(!options.output.empty(), "--output is missing: the latent store to write");
  options.encode.fit = options.fit == "crop" ? data::Fit::kCrop : data::Fit::kStretch;
  const auto codec = models::open_codec(options.codec);
  const auto communicator = world.communicator();
  communicator->set_timeout(kPatience);
  data::encode_folder(options.input, *codec, options.output, options.encode, options.provenance(),
                      communicator);
  if (world.rank() == 0) {
    summarize(options);
  }
  return kExitDone;
}

const bool registered =
    register_command("data encode", "turns a clip folder into a latent store", encode);

}  // namespace
}  // namespace minwm::apps
