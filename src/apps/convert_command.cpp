// minwm convert: published weights into checkpoints of ours, checkpoints of ours into files that
// upstream loads; and what a download of published files lacks.

#include <malloc.h>

#include <spdlog/spdlog.h>

#include "command.h"
#include "convert.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "published_files.h"

namespace minwm::apps {
namespace {

void check(const std::string& folder, const std::string& model, bool hashes) {
  require(!model.empty(), "--check needs --model: the preset whose files are wanted");
  const FilesReport report = check_published_files(folder, model, hashes);
  fmt::print("{}", report.text);
  std::fflush(stdout);
  require(report.missing + report.bad == 0,
          "{}: {} of {} files of {} are missing, {} truncated or damaged", folder, report.missing,
          report.known, model, report.bad);
}

int convert_command(comm::World& world, int argc, char** argv) {
  ConvertOptions options;
  std::string folder;
  bool hashes = false;
  Options parser("minwm convert",
                 "Published weights into a checkpoint, a checkpoint into files that upstream "
                 "loads.");
  options.declare(parser);
  parser.add("check", &folder,
             "folder of downloaded files: say which of those that --model needs are missing or "
             "truncated, and where they are published");
  parser.add("hashes", &hashes, "--check also compares the known SHA-256: reads every byte");
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(world.size() == 1, "minwm convert runs on one rank, not on {}", world.size());
  if (!folder.empty()) {
    check(folder, options.model, hashes);
    return kExitDone;
  }
  // Tensors come and go between small things that stay (HDF5's): on the heap they would leave holes
  // as large as the model, mapped they go back at once (2.3 GB of weights: 1428 against 159 MiB).
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  const Conversion done = convert(options);
  spdlog::info("{}; {} parameters{}", done.found, done.parameters,
               options.verify ? " read back, every byte as written" : "");
  fmt::print("{}\n", options.output);
  return kExitDone;
}

const bool registered = register_command(
    "convert", "published weights into checkpoints and back; what is missing of a download",
    convert_command);

}  // namespace
}  // namespace minwm::apps
