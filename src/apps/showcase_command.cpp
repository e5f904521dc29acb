// minwm showcase: fixed paths through one world as a contact sheet and a tiled video.

#include <filesystem>
#include <thread>

#include "command.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/data/synth.h"
#include "minwm/data/video.h"
#include "minwm/eval/contact_sheet.h"
#include "walks.h"
#include "writable.h"

namespace minwm::apps {
namespace {

struct ShowcaseOptions {
  std::string checkpoint, output, video, style = "detail", device = "cpu";
  std::vector<std::string> paths = {"forward=w", "back=s",      "left=a",
                                    "right=d",   "turn left=j", "turn right=l"};
  int64_t world = 900000, latents = 12, seed = 0, threads = 0;
  bool exact = false;
  eval::ContactSheetOptions sheet;
  stream::SamplerOverrides sampler;

  void declare(Options& options) {
    options.add("checkpoint", &checkpoint, "checkpoint folder (a step, or a run: its newest step)");
    options.add("world", &world, "seed of the procedural world whose first frame is given");
    options.add_choice("style", &style, {"detail", "standard"}, "kind of the world");
    options.add("paths", &paths,
                "NAME=KEYS, comma separated: keys held to the end, or poses with ; between pieces");
    options.add("latents", &latents, "latents per path: 1 + 4 (latents - 1) video frames");
    options.add("output", &output, "picture to write: .png or .jpg");
    options.add("video", &video, "mp4 of all paths side by side; empty = none");
    options.add("columns", &sheet.columns, "frames per row of the picture, evenly spaced");
    options.add("scale", &sheet.scale, "enlargement of the frames");
    options.add("caption", &sheet.caption, "line below the picture (ASCII); empty = none");
    options.add("exact", &exact, "show the exact video through the codec below every path");
    options.add("seed", &seed, "random seed of the noise");
    options.add("steps", &sampler.steps, "denoising steps; 0 = as the checkpoint records");
    options.add("solver", &sampler.solver,
                "euler, renoise, unipc or dpm++; empty = as the checkpoint records");
    options.add("threads", &threads, "CPU threads; 0 = all cores");
    options.add("device", &device, "cpu or cuda");
  }

  void check() const {
    require(!checkpoint.empty(), "--checkpoint is missing: the folder of a trained model");
    const auto extension = std::filesystem::path(output).extension();
    require(extension == ".png" || extension == ".jpg" || extension == ".jpeg",
            "--output '{}': expected the name of a .png or .jpg file", output);
    require(video.empty() || std::filesystem::path(video).extension() == ".mp4",
            "--video {}: expected a name that ends in .mp4", video);
    require(world >= 0 && threads >= 0 && sheet.columns >= 1 && sheet.scale >= 1,
            "--world and --threads cannot be negative, --columns and --scale not below 1");
  }
};

int showcase(comm::World& world, int argc, char** argv) {
  ShowcaseOptions options;
  Options parser("minwm showcase", "Paths through one world, as a picture and a video.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  options.check();
  require(world.size() == 1, "minwm showcase runs on one rank, not on {}: start it without mpirun",
          world.size());
  const auto walks = parse_walks(options.paths, options.latents, "paths");
  const auto device = open_device(options.device);
  at::set_num_threads(options.threads > 0
                          ? static_cast<int>(options.threads)
                          : std::max(static_cast<int>(std::thread::hardware_concurrency()), 1));
  auto loaded = stream::open_model(options.checkpoint, options.sampler, device);
  loaded.stream.seed = static_cast<uint64_t>(options.seed);
  for (const auto& file : {options.output, options.video}) {
    if (!file.empty()) {
      require_writable(file);
    }
  }
  const auto style = world_style(loaded.info, *loaded.codec, options.style);
  const auto scene = data::make_world(static_cast<uint64_t>(options.world), style);
  const auto videos = walk_videos(loaded, *scene, style, walks);
  std::vector<eval::SheetRow> rows;
  for (size_t k = 0; k < walks.size(); ++k) {
    rows.push_back({walks[k].name, videos[k]});
    if (options.exact) {
      rows.push_back({"exact", exact_video(*loaded.codec, *scene, walks[k], style)});
    }
  }
  data::write_image(options.output, eval::contact_sheet(rows, options.sheet));
  fmt::print("{}\n", options.output);
  if (!options.video.empty()) {
    auto tiles = options.sheet;
    tiles.columns = options.exact ? 4 : 3;
    data::write_video(options.video, eval::tiled_video(rows, tiles), data::kSynthFps);
    fmt::print("{}\n", options.video);
  }
  return kExitDone;
}

const bool registered =
    register_command("showcase", "paths through one world as a contact sheet and mp4", showcase);

}  // namespace
}  // namespace minwm::apps
