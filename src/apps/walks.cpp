#include "walks.h"

#include <algorithm>

#include "minwm/camera/pose_string.h"
#include "minwm/core/error.h"
#include "minwm/data/video.h"

namespace minwm::apps {
namespace {

at::Tensor path_of(const std::string& keys, int64_t latents) {
  const bool held = keys.find_first_of("*-:;0123456789") == std::string::npos;
  const auto motions =
      camera::parse_pose_string(held ? fmt::format("{}*{}", keys, latents - 1) : keys);
  const at::Tensor poses = camera::integrate(motions);
  const int64_t missing = latents - poses.size(0);
  return missing > 0 ? at::cat({poses, poses.slice(0, -1).expand({missing, 4, 4})})
                     : poses.narrow(0, 0, latents);
}

}  // namespace

std::vector<Walk> parse_walks(const std::vector<std::string>& entries, int64_t latents,
                              const std::string& option) {
  require(!entries.empty(), "--{}: expected paths, e.g. \"forward=w,turn left=j\"", option);
  require(latents >= 2, "--{}: {} latents are too few for a path; expected 2 or more", option,
          latents);
  std::vector<Walk> walks;
  for (const auto& entry : entries) {
    const size_t equals = entry.find('=');
    const std::string name = entry.substr(0, equals);
    const std::string keys = equals == std::string::npos ? entry : entry.substr(equals + 1);
    require(!name.empty() && !keys.empty(),
            "--{}: '{}': expected NAME=KEYS, e.g. \"turn left=j\", or keys alone", option, entry);
    try {
      walks.push_back({name, path_of(keys, latents)});
    } catch (const Error& error) {
      fail("--{}: '{}': {}", option, entry, error.what());
    }
  }
  return walks;
}

data::WorldStyle world_style(const train::CheckpointInfo& info, const models::Codec& codec,
                             const std::string& style) {
  data::WorldStyle world;
  world.name = style;
  world.height = info.latent_height * codec.spatial_factor();
  world.width = info.latent_width * codec.spatial_factor();
  return world;
}

at::Tensor world_text(const models::Backbone& model, const data::World& world,
                      const std::string& where) {
  const at::Tensor text = data::caption_embedding(data::caption(world)).unsqueeze(0);
  require(model.text_dim() == text.size(2),
          "{}: the model reads text states of width {}; only models of the built-in captions "
          "(width {}) can walk through procedural worlds",
          where, model.text_dim(), text.size(2));
  return text;
}

std::vector<at::Tensor> to_videos(const at::Tensor& pixels) {
  return models::to_uint8(pixels).permute({0, 1, 3, 4, 2}).contiguous().unbind(0);
}

at::Tensor exact_video(models::Codec& codec, const data::World& world, const Walk& walk,
                       const data::WorldStyle& style) {
  const at::Tensor frames =
      data::render(world, data::interpolate_latent_poses(walk.camera_to_world)).pixels;
  const at::Tensor pixels = data::to_pixels(frames, style.height, style.width).unsqueeze(0);
  return to_videos(codec.decode(codec.encode(pixels))).front();
}

std::vector<at::Tensor> walk_videos(const stream::LoadedModel& loaded, const data::World& world,
                                    const data::WorldStyle& style, const std::vector<Walk>& walks) {
  at::NoGradGuard no_grad;
  const int64_t batch = std::ssize(walks);
  std::vector<at::Tensor> poses;
  for (const auto& walk : walks) {
    poses.push_back(walk.camera_to_world);
  }
  const at::Tensor first = data::render(world, at::eye(4, at::kDouble).unsqueeze(0)).pixels;
  const at::Tensor given =
      loaded.codec->encode(data::to_pixels(first, style.height, style.width).unsqueeze(0));
  stream::GenerateRequest request;
  request.mode = loaded.mode;
  request.conditions.text =
      world_text(*loaded.model, world, loaded.info.model).expand({batch, -1, -1}).contiguous();
  request.given_latents = given.expand({batch, -1, -1, -1, -1}).contiguous();
  request.camera_to_world = at::stack(poses);
  request.height = loaded.info.latent_height;
  request.width = loaded.info.latent_width;
  request.stream = loaded.stream;
  const at::Tensor latents = stream::generate_latents(loaded.model, request);
  return to_videos(loaded.codec->decode(latents.to(at::kCPU)));
}

std::string describe_sampler(const stream::LoadedModel& loaded) {
  const auto& options = loaded.stream;
  return fmt::format(
      "{} {} step{}{}, {}", options.sigmas.size(), diffusion::solver_name(options.solver),
      options.sigmas.size() == 1 ? "" : "s",
      options.first_chunk_sigmas.empty()
          ? ""
          : fmt::format(" ({} in the first chunk)", options.first_chunk_sigmas.size()),
      loaded.mode == stream::Mode::kBidirectional ? "all frames at once"
      : options.memory                            ? "streamed with a context memory"
                                                  : "streamed");
}

}  // namespace minwm::apps
