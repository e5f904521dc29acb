#include "minwm/stream/generate.h"

#include "clip_noise.h"
#include "denoise.h"
#include "frame_inputs.h"
#include "minwm/core/error.h"
#include "minwm/diffusion/guidance.h"

namespace minwm::stream {
namespace {

at::Tensor stream_clip(const std::shared_ptr<models::Backbone>& model,
                       const GenerateRequest& request, const camera::Cameras& cameras,
                       int64_t frames) {
  const int64_t chunk = request.stream.chunk_frames;
  WorldStream stream(model, nullptr, request.stream);
  const at::Tensor& given = request.given_latents;
  // A single given latent is a frame of the first chunk, or told; more are chunks of their own.
  const bool told = model->reads_first_latent();
  const bool chunks_given = given.defined() && (given.size(1) > 1 || (chunk == 1 && !told));
  const bool first_given = given.defined() && (told || !chunks_given);
  stream.begin(request.conditions, first_given ? given.narrow(1, 0, 1) : at::Tensor(),
               request.height, request.width, request.negative);
  std::vector<at::Tensor> chunks;
  if (chunks_given) {
    require(given.size(1) % chunk == 0,
            "generate: {} given latents: streaming takes 1 or a multiple of the chunk ({})",
            given.size(1), chunk);
    for (int64_t first = 0; first < given.size(1); first += chunk) {
      chunks.push_back(
          stream.accept(given.narrow(1, first, chunk), cameras.frames(first, chunk)).latents);
    }
  }
  while (stream.frames() < frames) {
    const int64_t n = std::min(chunk, frames - stream.frames());
    chunks.push_back(stream.next(cameras.frames(stream.frames(), n), n).latents);
  }
  return at::cat(chunks, 1);
}

/// What the model is told of all frames at once.
models::Conditions clip_conditions(const models::Backbone& model, const GenerateRequest& request,
                                   const camera::Cameras& cameras, int64_t frames,
                                   const at::Tensor& given) {
  models::Conditions conditions = request.conditions.to(model.parameters().front().device());
  conditions.text = conditions.text.to(at::kFloat);
  conditions.cameras = model.reads_cameras() ? cameras : camera::Cameras{};
  if (model.reads_actions() && !conditions.actions.defined()) {
    require(cameras.defined(), "generate: this model reads the actions of poses, give poses");
    conditions.actions = models::actions_of(cameras);
  }
  require(!model.reads_first_latent() || !given.defined() || given.size(1) == 1,
          "generate: {} given latents: this model is told its first one and no others",
          given.defined() ? given.size(1) : 0);
  return with_image(model, conditions, given, frames);
}

at::Tensor bidirectional_clip(const std::shared_ptr<models::Backbone>& model,
                              const GenerateRequest& request, const camera::Cameras& cameras,
                              int64_t frames) {
  const auto& options = request.stream;
  const at::Device device = model->parameters().front().device();
  const at::Tensor given =
      request.given_latents.defined() ? request.given_latents.to(device, at::kFloat) : at::Tensor();
  models::ForwardInput input, unguided;
  input.conditions = clip_conditions(*model, request, cameras, frames, given);
  unguided.conditions = input.conditions.with_text_of(request.negative.to(device));
  const std::vector<int64_t> shape = {request.conditions.text.size(0), frames,
                                      model->latent_channels(), request.height, request.width};
  Walk walk;
  walk.noise = [&](int64_t step) {
    return (options.noise ? options.noise(0, step, shape)
                          : clip_noise(options.seed, "bidirectional.noise", 0, step, shape))
        .to(device);
  };
  walk.flow = [&](const at::Tensor& latents, const at::Tensor& timestep) {
    input.latents = unguided.latents = latents;
    input.timestep = unguided.timestep = timestep;
    const at::Tensor flow = model->forward(input);
    return options.guidance_scale == 1
               ? flow
               : diffusion::guide(flow, model->forward(unguided), options.guidance_scale);
  };
  walk.given = model->reads_first_latent() ? at::Tensor() : given;
  return denoise(*diffusion::make_sampler(options.solver, options.sigmas), walk);
}

}  // namespace

at::Tensor generate_latents(const std::shared_ptr<models::Backbone>& model,
                            const GenerateRequest& request) {
  at::NoGradGuard no_grad;
  const at::Tensor& text = request.conditions.text;
  require(text.defined() && text.dim() == 3, "generate: text must be [B, L, {}]",
          model->text_dim());
  const at::Device device = model->parameters().front().device();
  const camera::Cameras& own = request.conditions.cameras;
  camera::Cameras cameras;
  if (own.defined()) {
    cameras = {own.world_to_camera.to(device), own.intrinsics.to(device)};
  } else if (request.camera_to_world.defined()) {
    cameras = stream_cameras(request.camera_to_world, text.size(0), request.stream.fx,
                             request.stream.fy, device);
  }
  require(cameras.defined() || !model->reads_cameras(), "generate: no cameras were given");
  const int64_t frames = cameras.defined() ? cameras.world_to_camera.size(1) : request.frames;
  require(frames > 0, "generate: neither cameras nor a number of frames were given");
  return request.mode == Mode::kStream ? stream_clip(model, request, cameras, frames)
                                       : bidirectional_clip(model, request, cameras, frames);
}

}  // namespace minwm::stream
