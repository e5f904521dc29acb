#include "minwm/stream/world_stream.h"

#include "clip_noise.h"
#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::stream {

struct WorldStream::Impl {
  std::shared_ptr<models::Backbone> model;
  std::shared_ptr<models::Codec> codec;
  StreamOptions options;
  std::unique_ptr<models::KvCache> cache, unguided_cache;  // the second only under guidance
  std::unique_ptr<models::DecodeState> decode_state;
  at::Tensor text, first_latent;
  int64_t height = 0, width = 0, frames = 0, chunks = 0;
  at::Device device = at::kCPU;

  bool guided() const { return options.guidance_scale != 1; }

  models::StreamInput input(const at::Tensor& latents, const at::Tensor& timestep,
                            const camera::Cameras& cameras, bool commit) const {
    models::StreamInput in;
    in.latents = latents;
    in.timestep = timestep;
    in.conditions.text = text;
    in.conditions.cameras = cameras;
    in.commit = commit;
    return in;
  }

  at::Tensor flow(const at::Tensor& latents, const at::Tensor& timestep,
                  const camera::Cameras& cameras) {
    auto in = input(latents, timestep, cameras, false);
    at::Tensor conditional = model->stream(in, *cache);
    if (!guided()) {
      return conditional;
    }
    in.conditions.text = at::zeros_like(text);
    at::Tensor unconditional = model->stream(in, *unguided_cache);
    return unconditional + options.guidance_scale * (conditional - unconditional);
  }

  void commit(const at::Tensor& latents, const camera::Cameras& cameras) {
    auto in = input(latents, at::zeros({latents.size(0), latents.size(1)}, latents.options()),
                    cameras, true);
    model->stream(in, *cache);
    if (guided()) {
      in.conditions.text = at::zeros_like(text);
      model->stream(in, *unguided_cache);
    }
  }

  /// Walks one chunk down the noise levels. `given` [B, 1, …] replaces the first frame (t = 0) or
  /// is undefined.
  at::Tensor denoise(int64_t n, const camera::Cameras& cameras, const at::Tensor& given) {
    const int64_t batch = text.size(0);
    auto noise = [&](int64_t step) {
      return clip_noise(options.seed, "stream.noise", chunks, step, batch,
                        {n, model->latent_channels(), height, width})
          .to(device);
    };
    auto put_given = [&](at::Tensor& latents) {
      if (given.defined()) {
        latents.narrow(1, 0, 1).copy_(given);
      }
    };
    at::Tensor latents = noise(0) * options.sigmas.front();
    for (size_t step = 0; step < options.sigmas.size(); ++step) {
      const bool last = step + 1 == options.sigmas.size();
      const double next_sigma = last ? 0 : options.sigmas[step + 1];
      at::Tensor sigma = at::full({batch, n}, options.sigmas[step], latents.options());
      put_given(latents);
      if (given.defined()) {
        sigma.select(1, 0).zero_();
      }
      at::Tensor v = flow(latents, sigma * 1000, cameras);
      if (options.solver == Solver::kEuler && !last) {
        latents = latents + v * (next_sigma - options.sigmas[step]);
      } else {
        latents = diffusion::predict_x0(latents, v, sigma);
        if (!last) {
          latents = latents * (1 - next_sigma) + noise(static_cast<int64_t>(step) + 1) * next_sigma;
        }
      }
    }
    put_given(latents);
    return latents;
  }

  Chunk finish(at::Tensor latents, const camera::Cameras& cameras) {
    commit(latents, cameras);
    frames += latents.size(1);
    ++chunks;
    Chunk chunk{std::move(latents), {}};
    if (codec) {
      chunk.pixels = codec->decode_stream(chunk.latents, *decode_state);
    }
    return chunk;
  }

  camera::Cameras cameras(const at::Tensor& camera_to_world) const {
    require(text.defined(), "world stream: begin() comes before the first chunk");
    require(camera_to_world.dim() == 3 || camera_to_world.dim() == 4,
            "world stream: poses must be [n, 4, 4] or [B, n, 4, 4], got {} dimensions",
            camera_to_world.dim());
    return stream_cameras(camera_to_world, text.size(0), options.fx, options.fy, device);
  }
};

WorldStream::WorldStream(std::shared_ptr<models::Backbone> model,
                         std::shared_ptr<models::Codec> codec, const StreamOptions& options)
    : impl_(std::make_unique<Impl>()) {
  require(!options.sigmas.empty(), "world stream: at least one noise level is needed");
  require(options.fx > 0 && options.fy > 0,
          "world stream: normalised focal lengths must be positive, got {} {}", options.fx,
          options.fy);
  require(options.window_frames >= options.chunk_frames + options.sink_frames,
          "world stream: a window of {} frames does not hold a chunk of {} and {} sink frames",
          options.window_frames, options.chunk_frames, options.sink_frames);
  impl_->model = std::move(model);
  impl_->codec = std::move(codec);
  impl_->options = options;
  impl_->device = impl_->model->parameters().front().device();
}

WorldStream::~WorldStream() = default;

void WorldStream::begin(const at::Tensor& text, const at::Tensor& first_latent, int64_t height,
                        int64_t width) {
  auto& s = *impl_;
  require(text.dim() == 3, "world stream: text must be [B, L, {}], got {} dimensions",
          s.model->text_dim(), text.dim());
  s.text = text.to(s.device, at::kFloat);
  s.first_latent = first_latent.defined() ? first_latent.to(s.device, at::kFloat) : first_latent;
  s.height = height;
  s.width = width;
  s.frames = s.chunks = 0;
  const models::CacheOptions cache{text.size(0), s.options.window_frames, s.options.sink_frames};
  s.cache = s.model->make_cache(cache, height, width);
  if (s.guided()) {
    s.unguided_cache = s.model->make_cache(cache, height, width);
  }
  if (s.codec) {
    s.decode_state = s.codec->make_decode_state();
  }
}

WorldStream::Chunk WorldStream::next(const at::Tensor& camera_to_world) {
  at::NoGradGuard no_grad;
  auto& s = *impl_;
  const camera::Cameras cameras = s.cameras(camera_to_world);
  const at::Tensor given = s.frames == 0 ? s.first_latent : at::Tensor();
  return s.finish(s.denoise(cameras.world_to_camera.size(1), cameras, given), cameras);
}

WorldStream::Chunk WorldStream::accept(const at::Tensor& latents,
                                       const at::Tensor& camera_to_world) {
  at::NoGradGuard no_grad;
  auto& s = *impl_;
  const camera::Cameras cameras = s.cameras(camera_to_world);
  require(latents.size(1) == cameras.world_to_camera.size(1),
          "world stream: {} given latents but {} poses", latents.size(1),
          cameras.world_to_camera.size(1));
  return s.finish(latents.to(s.device, at::kFloat), cameras);
}

int64_t WorldStream::frames() const {
  return impl_->frames;
}

Solver parse_solver(const std::string& name) {
  if (name == "renoise") {
    return Solver::kRenoise;
  }
  require(name == "euler", "solver '{}': expected renoise or euler", name);
  return Solver::kEuler;
}

}  // namespace minwm::stream
