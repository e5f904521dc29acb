#include "minwm/stream/generate.h"

#include "clip_noise.h"
#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::stream {
namespace {

at::Tensor stream_clip(const std::shared_ptr<models::Backbone>& model,
                       const GenerateRequest& request, const at::Tensor& poses) {
  const int64_t chunk = request.stream.chunk_frames, frames = poses.size(1);
  WorldStream stream(model, nullptr, request.stream);
  const at::Tensor& given = request.given_latents;
  const bool inside_chunk = given.defined() && given.size(1) == 1;
  stream.begin(request.text, inside_chunk ? given : at::Tensor(), request.height, request.width);
  std::vector<at::Tensor> chunks;
  if (given.defined() && !inside_chunk) {
    require(given.size(1) % chunk == 0,
            "generate: {} given latents: streaming takes 1 or a multiple of the chunk ({})",
            given.size(1), chunk);
    for (int64_t first = 0; first < given.size(1); first += chunk) {
      chunks.push_back(
          stream.accept(given.narrow(1, first, chunk), poses.narrow(1, first, chunk)).latents);
    }
  }
  while (stream.frames() < frames) {
    const int64_t n = std::min(chunk, frames - stream.frames());
    chunks.push_back(stream.next(poses.narrow(1, stream.frames(), n)).latents);
  }
  return at::cat(chunks, 1);
}

at::Tensor bidirectional_clip(const std::shared_ptr<models::Backbone>& model,
                              const GenerateRequest& request, const at::Tensor& poses) {
  const auto& options = request.stream;
  const int64_t batch = request.text.size(0), frames = poses.size(1);
  const at::Device device = model->parameters().front().device();
  models::ForwardInput input;
  input.conditions.text = request.text.to(device, at::kFloat);
  input.conditions.cameras = stream_cameras(poses, batch, options.fx, options.fy, device);
  const at::Tensor& given = request.given_latents;
  at::Tensor latents = clip_noise(options.seed, "bidirectional.noise", 0, 0, batch,
                                  {frames, model->latent_channels(), request.height, request.width})
                           .to(device);
  for (size_t step = 0; step < options.sigmas.size(); ++step) {
    const double sigma = options.sigmas[step];
    const double next = step + 1 < options.sigmas.size() ? options.sigmas[step + 1] : 0;
    input.timestep = at::full({batch, frames}, 1000 * sigma, latents.options());
    if (given.defined()) {
      latents.narrow(1, 0, given.size(1)).copy_(given);
      input.timestep.narrow(1, 0, given.size(1)).zero_();
    }
    input.latents = latents;
    at::Tensor flow = model->forward(input);
    if (options.guidance_scale != 1) {
      auto unguided = input;
      unguided.conditions.text = at::zeros_like(input.conditions.text);
      const at::Tensor unconditional = model->forward(unguided);
      flow = unconditional + options.guidance_scale * (flow - unconditional);
    }
    if (options.solver == Solver::kEuler) {
      latents = latents + flow * (next - sigma);
    } else {
      const at::Tensor noise =
          clip_noise(options.seed, "bidirectional.noise", 0, static_cast<int64_t>(step) + 1, batch,
                     {frames, model->latent_channels(), request.height, request.width});
      latents = (latents - sigma * flow) * (1 - next) + noise.to(device) * next;
    }
  }
  if (given.defined()) {
    latents.narrow(1, 0, given.size(1)).copy_(given);
  }
  return latents;
}

}  // namespace

at::Tensor generate_latents(const std::shared_ptr<models::Backbone>& model,
                            const GenerateRequest& request) {
  at::NoGradGuard no_grad;
  require(request.text.dim() == 3, "generate: text must be [B, L, {}]", model->text_dim());
  at::Tensor poses = request.camera_to_world;
  if (poses.dim() == 3) {
    poses = poses.unsqueeze(0).expand({request.text.size(0), -1, -1, -1});
  }
  return request.mode == Mode::kStream ? stream_clip(model, request, poses)
                                       : bidirectional_clip(model, request, poses);
}

}  // namespace minwm::stream
