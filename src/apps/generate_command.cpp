// minwm generate: a checkpoint, a prompt, a first frame and a trajectory → mp4.

#include <filesystem>

#include "command.h"
#include "minwm/camera/pose_string.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/data/video.h"
#include "minwm/data/world.h"
#include "minwm/stream/loaded_model.h"
#include "writable.h"

namespace minwm::apps {
namespace {

struct GenerateOptions {
  std::string checkpoint, pose = "w*11", output, prompt, image, device = "cpu", compute = "auto";
  int64_t frames = 0, seed = 0, world = -1;
  double fps = 16;
  stream::SamplerOverrides sampler;

  void declare(Options& options) {
    options.add("checkpoint", &checkpoint, "checkpoint folder (a step, or a run: its newest step)");
    options.add("pose", &pose,
                "trajectory, e.g. \"w*8, l*3\": w s a d move, j l turn, i k tilt, w+l*4 both");
    options.add("output", &output, "mp4 file to write");
    options.add("frames", &frames,
                "video frames, 1 + 4 n; 0 = as long as the trajectory, or as the model was trained "
                "if it reads no cameras");
    options.add("seed", &seed, "random seed of the noise");
    options.add("prompt", &prompt, "what the world looks like");
    options.add("image", &image, "first frame (PNG or JPEG)");
    options.add("world", &world,
                "take first frame and prompt from this procedural world; -1 = none");
    options.add("steps", &sampler.steps, "denoising steps; 0 = as the checkpoint records");
    options.add("mode", &sampler.mode,
                "stream or bidirectional; empty = what the checkpoint was trained for");
    options.add("solver", &sampler.solver,
                "euler, renoise, unipc or dpm++; empty = as the checkpoint records");
    options.add("guidance", &sampler.guidance,
                "classifier-free guidance scale; 1 = off, 0 = as the checkpoint records");
    options.add("camera_cache", &sampler.camera_cache,
                "dual or rope_only: how an HY model's cameras read the past; empty = as the "
                "checkpoint records");
    options.add_choice("memory", &sampler.memory, {"none", "worldplay"},
                       "worldplay = a stream looks back at places it saw, not at a window");
    options.add("fps", &fps, "frames per second of the file");
    options.add("device", &device, "cpu or cuda");
    options.add_choice("compute", &compute, {"auto", "float32", "bfloat16"},
                       "type of matrix products; auto = float32 on a CPU, bfloat16 on a GPU");
  }

  void check() const {
    require(!checkpoint.empty(), "--checkpoint is missing: the folder of a trained model");
    require(!output.empty(), "--output is missing: the mp4 file to write");
    require(frames >= 0 && (frames == 0 || frames % 4 == 1),
            "--frames {}: expected 1 + 4 n (latent 0 is one frame, each later one four)", frames);
    require(std::filesystem::path(output).extension() == ".mp4",
            "--output {}: expected a name that ends in .mp4", output);
    require(fps > 0, "--fps {}: expected a positive number", fps);
  }
};

/// The first frame as uint8 [H, W, 3]; undefined if none was given. Sets the prompt of a procedural
/// world.
at::Tensor first_frame(GenerateOptions& options, int64_t width, int64_t height) {
  require(options.image.empty() || options.world < 0,
          "--image and --world both name a first frame: give one");
  if (options.world >= 0) {
    data::WorldStyle style;
    style.width = width;
    style.height = height;
    const auto world = data::make_world(static_cast<uint64_t>(options.world), style);
    if (options.prompt.empty()) {
      options.prompt = data::caption(*world);
    }
    return data::render(*world, at::eye(4, at::kDouble).unsqueeze(0)).pixels[0];
  }
  return options.image.empty() ? at::Tensor() : data::read_image(options.image);
}

at::ScalarType compute_type(const std::string& name, const c10::Device& device) {
  if (name == "float32" || (name == "auto" && device.is_cpu())) {
    return at::kFloat;
  }
  if (!has_native_bfloat16(device)) {
    spdlog::warn("--compute bfloat16: this CPU emulates it; float32 is faster");
  }
  return at::kBFloat16;
}

/// The poses of `video_frames` (0 = as many as there are): cut, or padded by standing still.
at::Tensor fit_path(const at::Tensor& poses, int64_t video_frames) {
  const int64_t frames = video_frames > 0 ? models::latent_frames(video_frames) : poses.size(0);
  const int64_t missing = frames - poses.size(0);
  if (missing > 0) {
    spdlog::warn("--pose has {} motions, {} frames need {}: the camera stands still at the end",
                 poses.size(0) - 1, video_frames, frames - 1);
    return at::cat({poses, poses.slice(0, -1).expand({missing, 4, 4})});
  }
  if (missing < 0) {
    spdlog::warn("--pose has {} motions, {} frames take only {}: the rest is cut off",
                 poses.size(0) - 1, video_frames, frames - 1);
  }
  return poses.narrow(0, 0, frames);
}

/// The poses [T, 4, 4] of the video. A model that reads no cameras has none to follow: its pose
/// string is emptied, and the camera of the file is said to stand still.
at::Tensor video_path(GenerateOptions& options, bool pose_given,
                      const stream::LoadedModel& loaded) {
  if (loaded.model->reads_cameras() || loaded.model->reads_actions()) {
    return fit_path(camera::integrate(camera::parse_pose_string(options.pose)), options.frames);
  }
  require(!pose_given || options.pose.empty(),
          "--pose {}: {} reads no cameras, its video follows the prompt and the first frame alone: "
          "drop --pose (--frames says how long it is)",
          options.pose, loaded.info.model);
  options.pose.clear();
  const int64_t frames =
      options.frames > 0 ? models::latent_frames(options.frames) : loaded.info.latent_frames;
  return at::eye(4, at::kDouble).expand({frames, 4, 4});
}

/// [1, F, 3, H, W], chunk by chunk with a progress bar or all at once, as the model works.
at::Tensor generate_pixels(const stream::LoadedModel& loaded, const at::Tensor& text,
                           const at::Tensor& given, const at::Tensor& poses) {
  const int64_t frames = poses.size(0), height = loaded.info.latent_height,
                width = loaded.info.latent_width;
  if (loaded.mode == stream::Mode::kBidirectional) {
    stream::GenerateRequest request;
    request.mode = loaded.mode;
    request.conditions.text = text;
    request.given_latents = given;
    request.camera_to_world = poses;
    request.height = height;
    request.width = width;
    request.stream = loaded.stream;
    return loaded.codec->decode(stream::generate_latents(loaded.model, request).to(at::kCPU));
  }
  stream::WorldStream walk(loaded.model, loaded.codec, loaded.stream);
  walk.begin(text, given, height, width);
  Progress progress("generate", frames, "latents");
  std::vector<at::Tensor> chunks;
  while (walk.frames() < frames) {
    const int64_t n = std::min(loaded.stream.chunk_frames, frames - walk.frames());
    chunks.push_back(walk.next(poses.narrow(0, walk.frames(), n)).pixels);
    progress.update(walk.frames());
  }
  return at::cat(chunks, 1);
}

int generate(comm::World& world, int argc, char** argv) {
  GenerateOptions options;
  Options parser("minwm generate",
                 "A checkpoint, a prompt, a first frame and a trajectory in; a video out.");
  options.declare(parser);
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  options.check();
  require(world.size() == 1, "minwm generate runs on one rank, not on {}: start it without mpirun",
          world.size());
  if (!options.pose.empty()) {  // what is wrong with it is said before anything is opened
    camera::parse_pose_string(options.pose);
  }
  const auto device = open_device(options.device);
  auto loaded = stream::open_model(options.checkpoint, options.sampler, device);
  const at::Tensor poses = video_path(options, parser.given("pose"), loaded);
  loaded.model->set_compute_dtype(compute_type(options.compute, device));
  require_writable(options.output);
  loaded.stream.seed = static_cast<uint64_t>(options.seed);

  const int64_t factor = loaded.codec->spatial_factor();
  const int64_t height = loaded.info.latent_height * factor,
                width = loaded.info.latent_width * factor;
  at::Tensor given;
  if (const at::Tensor image = first_frame(options, width, height); image.defined()) {
    given = loaded.codec->encode(data::to_pixels(image.unsqueeze(0), height, width).unsqueeze(0));
  }
  const at::Tensor text = data::caption_embedding(options.prompt).unsqueeze(0);
  require(text.size(2) == loaded.model->text_dim(),
          "{}: the model reads text states of width {}; only the built-in "
          "caption words (width {}) can be encoded here",
          options.checkpoint, loaded.model->text_dim(), text.size(2));

  const at::Tensor pixels = generate_pixels(loaded, text, given, poses);
  data::write_video(options.output, models::to_uint8(pixels[0]).permute({0, 2, 3, 1}).contiguous(),
                    options.fps);
  atomic_write(options.output + ".ini", parser.to_ini());
  fmt::print("{}\n", options.output);
  return kExitDone;
}

const bool registered = register_command(
    "generate", "a checkpoint + prompt + first frame + trajectory → mp4", generate);

}  // namespace
}  // namespace minwm::apps
