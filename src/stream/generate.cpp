#include "minwm/stream/generate.h"

#include "clip_noise.h"
#include "denoise.h"
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
  const bool inside_chunk = given.defined() && given.size(1) == 1 && chunk > 1;
  stream.begin(request.conditions, inside_chunk ? given : at::Tensor(), request.height,
               request.width, request.negative);
  std::vector<at::Tensor> chunks;
  if (given.defined() && !inside_chunk) {
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

at::Tensor bidirectional_clip(const std::shared_ptr<models::Backbone>& model,
                              const GenerateRequest& request, const camera::Cameras& cameras,
                              int64_t frames) {
  const auto& options = request.stream;
  const at::Device device = model->parameters().front().device();
  models::ForwardInput input, unguided;
  input.conditions = request.conditions.to(device);
  input.conditions.text = input.conditions.text.to(at::kFloat);
  input.conditions.cameras = cameras;
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
  walk.given =
      request.given_latents.defined() ? request.given_latents.to(device, at::kFloat) : at::Tensor();
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
  require(own.defined() || request.camera_to_world.defined(), "generate: no cameras were given");
  const camera::Cameras cameras =
      own.defined() ? camera::Cameras{own.world_to_camera.to(device), own.intrinsics.to(device)}
                    : stream_cameras(request.camera_to_world, text.size(0), request.stream.fx,
                                     request.stream.fy, device);
  const int64_t frames = cameras.world_to_camera.size(1);
  return request.mode == Mode::kStream ? stream_clip(model, request, cameras, frames)
                                       : bidirectional_clip(model, request, cameras, frames);
}

}  // namespace minwm::stream
