// minwm data synth: renders procedural worlds into a latent store or a clip folder.

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/synth.h"
#include "provenance.h"

namespace minwm::apps {
namespace {

/// A rank that is done early waits for the others at the end; one that fails ends the job anyway.
constexpr double kPatience = 7 * 24 * 3600;

struct SynthCommand {
  std::string store, codec, output;
  data::SynthOptions synth;

  void declare(Options& options) {
    options.add("store", &store, "latent store (HDF5) to write; needs --codec");
    options.add("codec", &codec, "codec file (minwm data fit-codec)");
    options.add("output", &output, "instead: clip folder to write, mp4 files and clips.json");
    options.add("worlds", &synth.worlds, "how many worlds");
    options.add("first_seed", &synth.first_seed, "seed of the first world");
    options.add("paths_per_world", &synth.paths_per_world,
                "random trajectories through each world");
    options.add("latent_frames", &synth.latent_frames,
                "latent frames T of a clip; 1 + 4 (T - 1) video frames");
    options.add("width", &synth.style.width, "pixels");
    options.add("height", &synth.style.height, "pixels");
    options.add_choice("style", &synth.style.name, {"detail", "standard"},
                       "kind of worlds: detail (10 objects) or standard (14)");
    options.add("samples", &synth.style.samples, "rays per pixel, per side");
  }

  std::string provenance() const {
    return apps::provenance("data synth", {{"worlds", synth.worlds},
                                           {"first_seed", synth.first_seed},
                                           {"paths_per_world", synth.paths_per_world},
                                           {"latent_frames", synth.latent_frames},
                                           {"width", synth.style.width},
                                           {"height", synth.style.height},
                                           {"style", synth.style.name},
                                           {"samples", synth.style.samples}});
  }
};

int synth(comm::World& world, int argc, char** argv) {
  SynthCommand options;
  Options parser("minwm data synth",
                 "Renders procedural worlds with exact cameras and captions. Killed, the same "
                 "command continues; mpirun -n N shares the work.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(options.store.empty() != options.output.empty(),
          "give either --store FILE (with --codec FILE) or --output FOLDER");
  require(options.store.empty() || !options.codec.empty(),
          "--codec is missing: the file that minwm data fit-codec wrote");
  const auto communicator = world.communicator();
  communicator->set_timeout(kPatience);
  if (options.store.empty()) {
    data::synth_folder(options.synth, options.output, options.provenance(), communicator);
  } else {
    const auto codec = models::open_codec(options.codec);
    data::synth_store(options.synth, *codec, options.store, options.provenance(), communicator);
  }
  if (world.rank() == 0) {
    fmt::print("{}: {} clips\n", options.store.empty() ? options.output : options.store,
               options.synth.samples());
  }
  return kExitDone;
}

const bool registered =
    register_command("data synth", "renders procedural worlds into a store or a folder", synth);

}  // namespace
}  // namespace minwm::apps
