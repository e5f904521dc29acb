// minwm data import: real clips with cameras into a clip folder.

#include <filesystem>
#include <optional>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/data/import.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;

/// The reference's clips: 77 frames.
constexpr int64_t kListLatents = 20;

struct ImportCommand {
  std::string output, root, format = "re10k";
  data::ImportOptions clips;
  bool optional = false;

  void declare(Options& options) {
    options.add("output", &output, "clip folder to write");
    options.add("data.root", &root,
                "folder of the source data; default: $MINWM_DATA_ROOT, else ../shared/data");
    options.add_choice("format", &format, {"re10k", "list"},
                       "re10k: videos/*.mp4, poses/*.txt, captions.json; list: "
                       "preencode_input.json, videos/*/gen.mp4");
    options.add("hold", &clips.hold,
                "clip frames per file frame: 1 = as filmed, 4 = one file frame for each latent "
                "frame (list: 1)");
    options.add("latent_frames", &clips.latent_frames,
                "latent frames of a clip at most; 0 = as many as there are (list: 20, exactly)");
    options.add("rescale", &clips.rescale,
                "scale translations to a median step of 0.08 per latent frame (list: false)");
    options.add("optional", &optional, "it is no error if there is no source data");
  }

  /// Where a list needs other defaults than estimated cameras at 3 frames per second.
  void set_list_defaults(const Options& parser) {
    clips.hold = parser.given("hold") ? clips.hold : 1;
    clips.latent_frames = parser.given("latent_frames") ? clips.latent_frames : kListLatents;
    clips.rescale = parser.given("rescale") && clips.rescale;
  }
};

/// The source data, or nothing.
std::optional<fs::path> find_source(const ImportCommand& options, std::string& looked_at) {
  fs::path root = data_root(options.root);
  if (root.empty()) {
    root = fs::path("..") / "shared" / "data";
  }
  looked_at = root;
  return options.format == "re10k" ? data::find_re10k(root) : data::find_list(root);
}

int import(comm::World& world, int argc, char** argv) {
  ImportCommand options;
  Options parser("minwm data import",
                 "Copies real clips with known cameras into a clip folder for minwm data encode.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(!options.output.empty(), "--output is missing: the clip folder to write");
  if (world.rank() > 0) {
    return kExitDone;  // copying files: one rank does it
  }
  const bool list = options.format == "list";
  if (list) {
    options.set_list_defaults(parser);
  }
  std::string looked_at;
  const std::optional<fs::path> source = find_source(options, looked_at);
  if (!source) {
    const std::string line =
        fmt::format("{}: no {} data here (--data.root or $MINWM_DATA_ROOT names it)", looked_at,
                    options.format);
    require(options.optional, "{}", line);
    fmt::print("skipped: {}\n", line);
    return kExitDone;
  }
  const data::ImportReport report =
      list ? data::import_list(*source, options.output, options.clips)
           : data::import_re10k(*source, options.output, options.clips);
  fmt::print("{}: {} clips imported, {} refused\n", options.output, report.imported,
             report.refused.size());
  require(report.imported > 0, "{}: no clip could be imported; the first: {}", source->string(),
          report.refused.empty() ? "there is none" : report.refused.front().reason);
  return kExitDone;
}

const bool registered =
    register_command("data import", "copies real clips with cameras into a clip folder", import);

}  // namespace
}  // namespace minwm::apps
