// minwm evaluate: does a checkpoint's video follow the camera? Writes metrics.json and report.html.

#include <chrono>
#include <filesystem>
#include <limits>
#include <thread>

#include <nlohmann/json.hpp>

#include "command.h"
#include "minwm/camera/pose_string.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/data/video.h"
#include "minwm/data/world.h"
#include "minwm/eval/evaluation.h"
#include "minwm/eval/real_clips.h"
#include "minwm/stages/camera_gap.h"
#include "minwm/stream/loaded_model.h"
#include "writable.h"

namespace minwm::apps {
namespace {

struct EvaluateOptions {
  std::string checkpoint, output, style = "detail", device = "cpu";
  std::vector<std::string> metrics_jsonl;
  eval::RealClipOptions real;
  int64_t clips = 24, first_seed = 900000, given = 1, frames = 0, seed = 0, threads = 0, batch = 32,
          sheets = 3;
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
    options.add("batch", &batch, "clips generated side by side");
    options.add("threads", &threads, "CPU threads; 0 = all cores");
    options.add("device", &device, "cpu or cuda");
    options.add("sheets", &sheets,
                "clips with random paths shown in the report, besides forward, strafe and turn");
    options.add("metrics_jsonl", &metrics_jsonl,
                "metrics.jsonl of the training stages, in their order: curves, camera gap");
    options.add("real_store", &real.store,
                "latent store of real clips: the first are shown through the codec");
    options.add("real_clips", &real.folder,
                "their clip folder; empty = the folder NAME-clips beside the store NAME.h5");
  }

  void check() const {
    require(!checkpoint.empty(), "--checkpoint is missing: the folder of a trained model");
    require(!output.empty(), "--output is missing: the folder for metrics.json and report.html");
    require(clips >= 2,
            "--clips {}: expected at least 2 (each is also given another one's cameras)", clips);
    require(first_seed >= 0 && batch >= 1 && threads >= 0 && sheets >= 0 && frames >= 0,
            "--first_seed, --batch, --threads, --sheets and --frames cannot be negative, --batch "
            "not 0");
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

std::vector<at::Tensor> to_videos(const at::Tensor& pixels) {
  return models::to_uint8(pixels).permute({0, 1, 3, 4, 2}).contiguous().unbind(0);
}

/// Everything that is generated: one list per row, each with a uint8 [F, H, W, 3] video per clip.
struct Videos {
  std::vector<at::Tensor> codec, still, model, wrong;
};

class Generator {
 public:
  Generator(const EvaluateOptions& options, stream::LoadedModel loaded,
            const std::vector<eval::Commanded>& clips)
      : options_(options), loaded_(std::move(loaded)), clips_(clips) {}

  /// @param truths  uint8 [F, H, W, 3] per clip.
  Videos run(const std::vector<at::Tensor>& truths, const std::vector<at::Tensor>& wrong_paths) {
    Videos videos;
    Progress progress("generate", 2 * static_cast<int64_t>(clips_.size()), "clips");
    for (size_t first = 0; first < clips_.size(); first += static_cast<size_t>(options_.batch)) {
      const size_t end = std::min(clips_.size(), first + static_cast<size_t>(options_.batch));
      std::vector<at::Tensor> truth, text, right, wrong;
      for (size_t i = first; i < end; ++i) {
        const auto& style = clips_[i].style;
        truth.push_back(data::to_pixels(truths[i], style.height, style.width));
        text.push_back(data::caption_embedding(data::caption(*clips_[i].world)));
        right.push_back(clips_[i].camera_to_world);
        wrong.push_back(wrong_paths[i]);
      }
      const at::Tensor latents = loaded_.codec->encode(at::stack(truth));
      append(videos.codec, latents);
      for (size_t i = first; i < end; ++i) {
        held_out_.push_back(held_out_clip(i, latents[static_cast<int64_t>(i - first)],
                                          text[i - first], wrong_paths[i]));
      }
      const at::Tensor given = latents.narrow(1, 0, options_.given);
      append(videos.model, generate(at::stack(text), given, at::stack(right), first));
      progress.update(static_cast<int64_t>(first + end));  // half of this batch's work
      append(videos.wrong, generate(at::stack(text), given, at::stack(wrong), first));
      progress.update(2 * static_cast<int64_t>(end));
    }
    progress.finish();
    for (const auto& video : videos.codec) {
      videos.still.push_back(video.slice(0, 0, 1).expand_as(video).contiguous());
    }
    return videos;
  }

  /// After run(): the camera gap in dB on the first `count` clips; NaN if their length is not one
  /// the model was made for.
  double camera_gap(size_t count) {
    stages::GapOptions gap;
    gap.causal = loaded_.mode == stream::Mode::kStream;
    gap.chunk_frames = loaded_.stream.chunk_frames;
    gap.seed = static_cast<uint64_t>(options_.seed);
    const int64_t frames = clips_.front().frames();
    if (gap.causal && (frames % gap.chunk_frames != 0 || frames == gap.chunk_frames)) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    const std::vector<stages::GapClip> judged(
        held_out_.begin(), held_out_.begin() + static_cast<std::ptrdiff_t>(count));
    return stages::camera_gap(
               stages::camera_gap_errors(*loaded_.model, *loaded_.codec, judged, gap))
        .gap;
  }

 private:
  stages::GapClip held_out_clip(size_t i, const at::Tensor& latents, const at::Tensor& text,
                                const at::Tensor& wrong) {
    const auto& sampler = loaded_.stream;
    const auto right = camera::make_cameras(clips_[i].camera_to_world, sampler.fx, sampler.fy);
    stages::GapClip judged;
    judged.clip.latents = latents;
    judged.clip.text = text;
    judged.clip.world_to_camera = right.world_to_camera[0];
    judged.clip.intrinsics = right.intrinsics[0][0];
    judged.other_world_to_camera =
        camera::make_cameras(wrong, sampler.fx, sampler.fy).world_to_camera[0];
    judged.index = static_cast<int64_t>(i);
    return judged;
  }

  void append(std::vector<at::Tensor>& videos, const at::Tensor& latents) {
    for (const auto& video : to_videos(loaded_.codec->decode(latents.to(at::kCPU)))) {
      videos.push_back(video);
    }
  }

  at::Tensor generate(const at::Tensor& text, const at::Tensor& given, const at::Tensor& poses,
                      size_t first) {
    stream::GenerateRequest request;
    request.mode = loaded_.mode;
    request.conditions.text = text;
    request.given_latents = given;
    request.camera_to_world = poses;
    request.height = loaded_.info.latent_height;
    request.width = loaded_.info.latent_width;
    request.stream = loaded_.stream;
    // The noise is addressed by the place in the batch: another batch needs another seed.
    request.stream.seed =
        static_cast<uint64_t>(options_.seed) + (static_cast<uint64_t>(first) << 32);
    return stream::generate_latents(loaded_.model, request);
  }

  const EvaluateOptions& options_;
  stream::LoadedModel loaded_;
  const std::vector<eval::Commanded>& clips_;
  std::vector<stages::GapClip> held_out_;
};

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

std::string describe_sampler(const stream::LoadedModel& loaded) {
  return fmt::format("{} {} steps, {}", loaded.stream.sigmas.size(),
                     diffusion::solver_name(loaded.stream.solver),
                     loaded.mode == stream::Mode::kStream ? "streamed" : "all frames at once");
}

std::vector<eval::EvaluationRow> judge(const std::vector<eval::Commanded>& clips,
                                       const Videos& videos, int threads) {
  auto judges = eval::make_judges(clips, threads);
  const auto row = [&](const char* key, const char* name, const std::vector<at::Tensor>& all) {
    const std::vector<at::Tensor> scored(all.begin(),
                                         all.begin() + static_cast<std::ptrdiff_t>(clips.size()));
    return eval::make_row(key, name, eval::score_clips(judges, scored, threads));
  };
  for (size_t i = 0; i < judges.size(); ++i) {
    judges[i]->set_reference(videos.codec[i]);
  }
  return {row("truth", "truth through the codec", videos.codec),
          row("still", "still picture", videos.still), row("model", "model", videos.model),
          row("wrong", "model, cameras of other clips", videos.wrong)};
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
  require_writable(std::filesystem::path(options.output) / "report.html");
  data::WorldStyle style;
  style.name = options.style;
  style.height = info.latent_height * loaded.codec->spatial_factor();
  style.width = info.latent_width * loaded.codec->spatial_factor();
  const int64_t frames = options.frames > 0 ? options.frames : info.latent_frames;
  require(loaded.model->text_dim() == data::caption_embedding("").size(1),
          "{}: the model reads text states of width {}; only models of the built-in captions "
          "(width {}) can be evaluated on "
          "procedural worlds",
          options.checkpoint, loaded.model->text_dim(), data::caption_embedding("").size(1));
  evaluation.checkpoint = options.checkpoint;
  evaluation.model = info.model;
  evaluation.stage = info.stage;
  evaluation.step = info.step;
  evaluation.sampler = describe_sampler(loaded);
  evaluation.real =
      eval::reconstruct_real_clips(options.real, *loaded.codec, style.height, style.width);

  const auto clips = command_clips(options, style, frames);
  const auto scored = static_cast<size_t>(options.clips);
  std::vector<at::Tensor> truths(clips.size()), wrong_paths;
  eval::for_each_clip(clips.size(), threads,
                      [&](size_t i) { truths[i] = eval::render_truth(clips[i]); });
  for (size_t i = 0; i < clips.size(); ++i) {
    wrong_paths.push_back(i < scored ? wrong_path(clips, i, 0, scored)
                                     : wrong_path(clips, i, scored, clips.size()));
  }
  Generator generator(options, std::move(loaded), clips);
  const Videos videos = generator.run(truths, wrong_paths);
  evaluation.camera_gap = generator.camera_gap(scored);
  evaluation.clips.assign(clips.begin(), clips.begin() + options.clips);
  evaluation.rows = judge(evaluation.clips, videos, threads);
  evaluation.sheets = all_sheets(options, clips, truths, videos);
  evaluation.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return evaluation;
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
