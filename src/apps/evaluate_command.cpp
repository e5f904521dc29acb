// minwm evaluate: does a checkpoint's video follow the camera? Writes metrics.json and report.html.

#include <chrono>
#include <filesystem>
#include <thread>

#include <nlohmann/json.hpp>

#include "clip_generator.h"
#include "command.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/data/world.h"
#include "minwm/eval/evaluation.h"
#include "minwm/eval/real_clips.h"
#include "minwm/eval/stage_table.h"
#include "minwm/stream/loaded_model.h"
#include "stream_measures.h"
#include "walks.h"
#include "writable.h"

namespace minwm::apps {
namespace {

struct EvaluateOptions {
  std::string checkpoint, output, style = "detail", device = "cpu", teacher, baseline;
  std::vector<std::string> metrics_jsonl, table;
  eval::RealClipOptions real;
  int64_t clips = 24, first_seed = 900000, given = 1, frames = 0, seed = 0, threads = 0, batch = 32,
          sheets = 3, long_latents = 0, long_worlds = 4;
  stream::SamplerOverrides sampler;

  void declare(Options& options) {
    options.add("checkpoint", &checkpoint, "checkpoint folder (a step, or a run: its newest step)");
    options.add("output", &output, "folder for metrics.json and report.html");
    options.add("clips", &clips, "held-out worlds, each with its random path");
    options.add("first_seed", &first_seed, "seed of the first world; the others follow");
    options.add_choice("style", &style, {"detail", "standard"}, "kind of the worlds");
    options.add("given", &given,
                "latents that are handed to the model; those after them are judged");
    options.add("frames", &frames, "latents per clip; 0 = as the model was trained");
    options.add("seed", &seed, "random seed of the noise");
    options.add("steps", &sampler.steps, "denoising steps; 0 = as the checkpoint records");
    options.add("solver", &sampler.solver,
                "euler, renoise, unipc or dpm++; empty = as the checkpoint records");
    options.add("guidance", &sampler.guidance,
                "classifier-free guidance scale; 1 = off, 0 = as the checkpoint records");
    options.add_choice("memory", &sampler.memory, {"none", "worldplay"},
                       "worldplay = a stream looks back at places it saw, not at a window");
    options.add("batch", &batch, "clips generated side by side");
    options.add("threads", &threads, "CPU threads; 0 = all cores");
    options.add("device", &device, "cpu or cuda");
    options.add("sheets", &sheets,
                "clips with random paths shown in the report, besides forward, strafe and turn");
    options.add("long", &long_latents,
                "also stream this many latents without a break and measure drift; 0 = no");
    options.add("long_worlds", &long_worlds, "worlds of the long stream");
    options.add("table", &table,
                "NAME=FOLDER of earlier evaluations, comma separated: makes one table of them "
                "(table.md, table.json, report.html) instead of evaluating");
    options.add("teacher", &teacher,
                "with --table: the name whose following and PSNR the others keep a share of");
    options.add("baseline", &baseline,
                "with --table: the name whose first-frame latency the others are compared with");
    options.add("metrics_jsonl", &metrics_jsonl,
                "metrics.jsonl of the training stages, in their order: curves, camera gap");
    options.add("real_store", &real.store,
                "latent store of real clips: the first are shown through the codec");
    options.add("real_clips", &real.folder,
                "their clip folder; empty = the folder NAME-clips beside the store NAME.h5");
  }

  void check() const {
    require(!output.empty(), "--output is missing: the folder for metrics.json and report.html");
    if (!table.empty()) {
      require(checkpoint.empty(),
              "--table and --checkpoint: a table is made of earlier evaluations; give one");
      return;
    }
    require(teacher.empty() && baseline.empty(), "--teacher and --baseline belong to --table");
    require(!checkpoint.empty(), "--checkpoint is missing: the folder of a trained model");
    require(clips >= 2,
            "--clips {}: expected at least 2 (each is also given another one's cameras)", clips);
    require(first_seed >= 0 && batch >= 1 && threads >= 0 && sheets >= 0 && frames >= 0 &&
                long_latents >= 0,
            "--first_seed, --batch, --threads, --sheets, --frames and --long cannot be negative, "
            "--batch not 0");
  }
};

constexpr int64_t kManySteps =
    16;  // enough to judge following (tiny-world 8), a third of generate's time

constexpr const char* kShownPaths[] = {"w", "d",
                                       "l"};  // forward, strafe, turn: the sheets every report has
constexpr const char* kShownNames[] = {"Forward", "Strafe", "Turn"};
constexpr size_t kShown = std::size(kShownPaths);

/// The scored clips, then the shown ones (which only appear as pictures).
std::vector<eval::Commanded> command_clips(const EvaluateOptions& options,
                                           const data::WorldStyle& style, int64_t frames) {
  std::vector<eval::Commanded> clips;
  for (int64_t i = 0; i < options.clips; ++i) {
    clips.push_back(eval::command_clip(static_cast<uint64_t>(options.first_seed + i), style, frames,
                                       options.given));
  }
  for (size_t k = 0; k < kShown; ++k) {
    const auto seed = static_cast<uint64_t>(options.first_seed + static_cast<int64_t>(k));
    clips.push_back(eval::command_clip(seed, style, frames, options.given,
                                       fmt::format("{}*{}", kShownPaths[k], frames - 1)));
  }
  return clips;
}

/// Clip i's start, then the motions of another clip of the same kind: the next whose path differs.
at::Tensor wrong_path(const std::vector<eval::Commanded>& clips, size_t i, size_t first,
                      size_t end) {
  const eval::Commanded& clip = clips[i];
  at::Tensor path;
  for (size_t step = 1; step < end - first; ++step) {
    const auto& other = clips[first + (i - first + step) % (end - first)];
    path = eval::other_path(clip.camera_to_world, clip.given, other.trajectory);
    if (!at::allclose(path, clip.camera_to_world, 0, 1e-6)) {
      break;
    }
  }
  return path;
}

eval::Sheet clip_sheet(const std::string& title, const eval::Commanded& clip,
                       const at::Tensor& truth, const Videos& videos, size_t i) {
  eval::Sheet sheet;
  sheet.title = title;
  sheet.note = fmt::format("{}, {}", clip.name, clip.trajectory);
  sheet.given = clip.given;
  for (const int key : eval::commanded_keys(clip.camera_to_world)) {
    sheet.keys.push_back(key < 0 ? "·" : eval::kKeys[static_cast<size_t>(key)]);
  }
  sheet.rows = {
      {"exact", truth}, {"generated", videos.model[i]}, {"wrong cameras", videos.wrong[i]}};
  return sheet;
}

/// The shown clips, then the first random ones.
std::vector<eval::Sheet> all_sheets(const EvaluateOptions& options,
                                    const std::vector<eval::Commanded>& clips,
                                    const std::vector<at::Tensor>& truths, const Videos& videos) {
  std::vector<eval::Sheet> sheets;
  const auto scored = static_cast<size_t>(options.clips);
  for (size_t k = 0; k < kShown; ++k) {
    sheets.push_back(
        clip_sheet(kShownNames[k], clips[scored + k], truths[scored + k], videos, scored + k));
  }
  for (size_t i = 0; i < std::min(scored, static_cast<size_t>(options.sheets)); ++i) {
    sheets.push_back(
        clip_sheet(fmt::format("Random path {}", i + 1), clips[i], truths[i], videos, i));
  }
  return sheets;
}

/// Where chunk borders and token borders are looked for.
struct Layout {
  int64_t chunk_frames, token_pixels;
};

std::vector<eval::EvaluationRow> judge(const std::vector<eval::Commanded>& clips,
                                       const Videos& videos, const Layout& layout, int threads) {
  auto judges = eval::make_judges(clips, threads);
  const auto row = [&](const char* key, const char* name, const std::vector<at::Tensor>& all) {
    const std::vector<at::Tensor> scored(all.begin(),
                                         all.begin() + static_cast<std::ptrdiff_t>(clips.size()));
    return eval::make_row(key, name, eval::score_clips(judges, scored, threads));
  };
  for (size_t i = 0; i < judges.size(); ++i) {
    judges[i]->set_layout(layout.chunk_frames, layout.token_pixels);
    judges[i]->set_reference(videos.codec[i]);
  }
  return {row("truth", "truth through the codec", videos.codec),
          row("still", "still picture", videos.still), row("model", "model", videos.model),
          row("wrong", "model, cameras of other clips", videos.wrong)};
}

/// Latency, with as many steps as a user gets who says nothing, and the long stream.
void measure_stream(const EvaluateOptions& options, const stream::LoadedModel& loaded,
                    const eval::Commanded& clip, eval::Evaluation& evaluation, int threads) {
  auto timed = loaded;
  const auto choice = stream::choose_sampler(loaded.info, options.sampler, options.checkpoint);
  timed.stream.solver = choice.solver;
  timed.stream.sigmas = choice.sigmas;
  timed.stream.first_chunk_sigmas = choice.first_chunk_sigmas;
  evaluation.chunk_frames =
      loaded.mode == stream::Mode::kStream ? loaded.stream.chunk_frames : clip.frames();
  evaluation.latency = measure_latency(timed, clip, open_device(options.device));
  if (options.long_latents > 0) {
    evaluation.drift =
        stream_long(loaded, clip.style,
                    {options.long_latents, options.long_worlds, options.first_seed, threads});
  }
}

eval::Evaluation evaluate_checkpoint(const EvaluateOptions& options, int threads) {
  const auto start = std::chrono::steady_clock::now();
  eval::Evaluation evaluation;
  for (const auto& path : options.metrics_jsonl) {
    evaluation.training.push_back(eval::read_training_log(path));
  }
  const auto device = open_device(options.device);
  at::set_num_threads(threads);
  auto sampler = options.sampler;
  if (sampler.steps == 0 && train::Checkpoint(options.checkpoint).info().step_list.empty()) {
    sampler.steps = kManySteps;
  }
  auto loaded = stream::open_model(options.checkpoint, sampler, device);
  const auto info = loaded.info;
  if (!loaded.model->reads_cameras()) {
    spdlog::warn("{}: {} reads no cameras: how it follows them is chance, there is no camera gap",
                 options.checkpoint, info.model);
  }
  require_writable(std::filesystem::path(options.output) / "report.html");
  const auto style = world_style(info, *loaded.codec, options.style);
  const int64_t frames = options.frames > 0 ? options.frames : info.latent_frames;
  evaluation.checkpoint = options.checkpoint;
  evaluation.model = info.model;
  evaluation.stage = info.stage;
  evaluation.step = info.step;
  evaluation.sampler = describe_sampler(loaded);
  evaluation.real =
      eval::reconstruct_real_clips(options.real, *loaded.codec, style.height, style.width);

  const auto clips = command_clips(options, style, frames);
  world_text(*loaded.model, *clips.front().world, options.checkpoint);
  measure_stream(options, loaded, clips.front(), evaluation, threads);
  const auto scored = static_cast<size_t>(options.clips);
  std::vector<at::Tensor> truths(clips.size()), wrong_paths;
  eval::for_each_clip(clips.size(), threads,
                      [&](size_t i) { truths[i] = eval::render_truth(clips[i]); });
  for (size_t i = 0; i < clips.size(); ++i) {
    wrong_paths.push_back(i < scored ? wrong_path(clips, i, 0, scored)
                                     : wrong_path(clips, i, scored, clips.size()));
  }
  const Layout layout{loaded.stream.chunk_frames, token_pixels(*loaded.model, *loaded.codec)};
  ClipGenerator generator({options.batch, options.given, static_cast<uint64_t>(options.seed)},
                          std::move(loaded), clips);
  const Videos videos = generator.run(truths, wrong_paths);
  evaluation.camera_gap = generator.camera_gap(scored);
  evaluation.clips.assign(clips.begin(), clips.begin() + options.clips);
  evaluation.rows = judge(evaluation.clips, videos, layout, threads);
  evaluation.sheets = all_sheets(options, clips, truths, videos);
  evaluation.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return evaluation;
}

/// --table: several evaluations side by side.
int tabulate(const EvaluateOptions& options) {
  eval::StageTable table;
  table.teacher = options.teacher;
  table.baseline = options.baseline;
  for (const auto& entry : options.table) {
    const size_t equals = entry.find('=');
    require(equals != std::string::npos && equals > 0 && equals + 1 < entry.size(),
            "--table: '{}': expected NAME=FOLDER, the folder of an evaluation", entry);
    table.rows.push_back(eval::read_stage_row(entry.substr(0, equals), entry.substr(equals + 1)));
  }
  for (const auto& path : options.metrics_jsonl) {
    table.training.push_back(eval::read_training_log(path));
  }
  eval::check(table);
  const std::filesystem::path folder = options.output;
  const std::string markdown = eval::to_markdown(table);
  atomic_write(folder / "table.md", markdown);
  atomic_write(folder / "table.json", eval::to_json(table).dump(1) + "\n");
  atomic_write(folder / "report.html", eval::to_html(table));
  fmt::print("{}\n{}\n", markdown, (folder / "report.html").string());
  return kExitDone;
}

int evaluate(comm::World& world, int argc, char** argv) {
  EvaluateOptions options;
  Options parser("minwm evaluate",
                 "Measures whether a checkpoint's video follows the camera; writes a report.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  options.check();
  require(world.size() == 1,
          "minwm evaluate runs on one rank (it uses threads), not on {}: start it without mpirun",
          world.size());
  if (!options.table.empty()) {
    return tabulate(options);
  }
  const int threads = options.threads > 0 ? static_cast<int>(options.threads)
                                          : static_cast<int>(std::thread::hardware_concurrency());
  auto evaluation = evaluate_checkpoint(options, std::max(threads, 1));
  evaluation.options = parser.to_ini();
  const std::filesystem::path folder = options.output;
  atomic_write(folder / "metrics.json", eval::to_json(evaluation).dump(1) + "\n");
  atomic_write(folder / "report.html", eval::to_html(evaluation));
  fmt::print("{}{}\n", eval::to_text(evaluation), (folder / "report.html").string());
  return kExitDone;
}

const bool registered = register_command(
    "evaluate", "measures whether a checkpoint's video follows the camera; HTML report", evaluate);

}  // namespace
}  // namespace minwm::apps
