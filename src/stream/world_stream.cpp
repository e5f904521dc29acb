#include "minwm/stream/world_stream.h"

#include "clip_noise.h"
#include "denoise.h"
#include "minwm/core/error.h"
#include "minwm/diffusion/guidance.h"

namespace minwm::stream {

struct WorldStream::Impl {
  std::shared_ptr<models::Backbone> model;
  std::shared_ptr<models::Codec> codec;
  StreamOptions options;
  std::unique_ptr<models::KvCache> cache, unguided_cache;  // the second only under guidance
  std::unique_ptr<models::DecodeState> decode_state;
  models::Conditions conditions, unguided;
  at::Tensor first_latent;
  int64_t height = 0, width = 0, frames = 0, chunks = 0;
  at::Device device = at::kCPU;

  bool guided() const { return options.guidance_scale != 1; }
  int64_t batch() const { return conditions.text.size(0); }

  /// `all` for the next n frames.
  models::Conditions chunk_conditions(const models::Conditions& all, const camera::Cameras& cameras,
                                      int64_t n) const {
    models::Conditions own = all;
    own.cameras = cameras;
    if (all.image_latents.defined()) {
      const int64_t end = all.image_latents.size(1), first = std::min(frames, end);
      const at::Tensor some = all.image_latents.slice(1, first, std::min(first + n, end));
      own.image_latents = at::constant_pad_nd(some, {0, 0, 0, 0, 0, 0, 0, n - some.size(1)});
    }
    return own;
  }

  at::Tensor flow(models::StreamInput& in, models::StreamInput& unguided_in,
                  const at::Tensor& latents, const at::Tensor& timestep) {
    in.latents = unguided_in.latents = latents;
    in.timestep = unguided_in.timestep = timestep;
    const at::Tensor conditional = model->stream(in, *cache);
    return guided() ? diffusion::guide(conditional, model->stream(unguided_in, *unguided_cache),
                                       options.guidance_scale)
                    : conditional;
  }

  /// Walks the next n frames down the noise levels. `given` [B, 1, …] replaces the first frame
  /// (t = 0) or is undefined.
  at::Tensor generate(int64_t n, const camera::Cameras& cameras, const at::Tensor& given) {
    models::StreamInput in, unguided_in;
    in.conditions = chunk_conditions(conditions, cameras, n);
    unguided_in.conditions = chunk_conditions(unguided, cameras, n);
    const std::vector<int64_t> shape = {batch(), n, model->latent_channels(), height, width};
    Walk walk;
    walk.noise = [&](int64_t step) {
      return (options.noise ? options.noise(chunks, step, shape)
                            : clip_noise(options.seed, "stream.noise", chunks, step, shape))
          .to(device);
    };
    walk.flow = [&](const at::Tensor& latents, const at::Tensor& timestep) {
      return flow(in, unguided_in, latents, timestep);
    };
    walk.given = given;
    const bool first = frames == 0 && !options.first_chunk_sigmas.empty();
    return denoise(*diffusion::make_sampler(options.solver,
                                            first ? options.first_chunk_sigmas : options.sigmas),
                   walk);
  }

  /// Commits clean latents at `timestep` and decodes them.
  Chunk finish(at::Tensor latents, const camera::Cameras& cameras, double timestep) {
    const int64_t n = latents.size(1);
    models::StreamInput in;
    in.latents = latents;
    in.timestep = at::full({latents.size(0), n}, timestep, latents.options());
    in.conditions = chunk_conditions(conditions, cameras, n);
    in.commit = true;
    model->stream(in, *cache);
    if (guided()) {
      in.conditions = chunk_conditions(unguided, cameras, n);
      model->stream(in, *unguided_cache);
    }
    frames += n;
    ++chunks;
    Chunk chunk{std::move(latents), {}};
    if (codec) {
      chunk.pixels = codec->decode_stream(chunk.latents, *decode_state);
    }
    return chunk;
  }

  void require_begun() const {
    require(conditions.text.defined(), "world stream: begin() comes before the first chunk");
  }

  camera::Cameras cameras(const at::Tensor& camera_to_world) const {
    require_begun();
    require(camera_to_world.dim() == 3 || camera_to_world.dim() == 4,
            "world stream: poses must be [n, 4, 4] or [B, n, 4, 4], got {} dimensions",
            camera_to_world.dim());
    return stream_cameras(camera_to_world, batch(), options.fx, options.fy, device);
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

void WorldStream::begin(const models::Conditions& conditions, const at::Tensor& first_latent,
                        int64_t height, int64_t width, const models::Conditions& negative) {
  auto& s = *impl_;
  require(conditions.text.defined() && conditions.text.dim() == 3,
          "world stream: text must be [B, L, {}], got {} dimensions", s.model->text_dim(),
          conditions.text.defined() ? conditions.text.dim() : 0);
  s.conditions = conditions.to(s.device);
  s.conditions.text = s.conditions.text.to(at::kFloat);
  s.first_latent = first_latent.defined() ? first_latent.to(s.device, at::kFloat) : first_latent;
  s.height = height;
  s.width = width;
  s.frames = s.chunks = 0;
  models::CacheOptions cache;
  cache.batch = s.batch();
  cache.window_frames = s.options.window_frames;
  cache.sink_frames = s.options.sink_frames;
  s.cache = s.model->make_cache(cache, height, width);
  if (s.guided()) {
    s.unguided = s.conditions.with_text_of(negative.to(s.device));
    s.unguided_cache = s.model->make_cache(cache, height, width);
  }
  if (s.codec) {
    s.decode_state = s.codec->make_decode_state();
  }
}

void WorldStream::begin(const at::Tensor& text, const at::Tensor& first_latent, int64_t height,
                        int64_t width) {
  models::Conditions conditions;
  conditions.text = text;
  begin(conditions, first_latent, height, width);
}

WorldStream::Chunk WorldStream::next(const at::Tensor& camera_to_world) {
  const camera::Cameras cameras = impl_->cameras(camera_to_world);
  return next(cameras, cameras.world_to_camera.size(1));
}

WorldStream::Chunk WorldStream::next(const camera::Cameras& cameras, int64_t frames) {
  at::NoGradGuard no_grad;
  auto& s = *impl_;
  s.require_begun();
  const at::Tensor given = s.frames == 0 ? s.first_latent : at::Tensor();
  if (given.defined() && frames == 1) {  // nothing is left to generate
    return accept(given.expand({s.batch(), -1, -1, -1, -1}), cameras);
  }
  return s.finish(s.generate(frames, cameras, given), cameras, s.options.context_timestep);
}

WorldStream::Chunk WorldStream::accept(const at::Tensor& latents,
                                       const at::Tensor& camera_to_world) {
  const camera::Cameras cameras = impl_->cameras(camera_to_world);
  require(latents.size(1) == cameras.world_to_camera.size(1),
          "world stream: {} given latents but {} poses", latents.size(1),
          cameras.world_to_camera.size(1));
  return accept(latents, cameras);
}

WorldStream::Chunk WorldStream::accept(const at::Tensor& latents, const camera::Cameras& cameras) {
  at::NoGradGuard no_grad;
  auto& s = *impl_;
  s.require_begun();
  return s.finish(latents.to(s.device, at::kFloat), cameras, 0);
}

int64_t WorldStream::frames() const {
  return impl_->frames;
}

}  // namespace minwm::stream
