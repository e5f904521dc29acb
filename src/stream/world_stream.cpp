#include "minwm/stream/world_stream.h"

#include "clip_noise.h"
#include "denoise.h"
#include "frame_inputs.h"
#include "history.h"
#include "minwm/core/error.h"
#include "minwm/diffusion/guidance.h"

namespace minwm::stream {

struct WorldStream::Impl {
  std::shared_ptr<models::Backbone> model;
  std::shared_ptr<models::Codec> codec;
  StreamOptions options;
  std::unique_ptr<models::KvCache> cache, unguided_cache;  // the second only under guidance
  std::unique_ptr<models::DecodeState> decode_state;
  std::unique_ptr<History> history;         // only with a context memory
  models::Conditions conditions, unguided;  // of the whole clip
  at::Tensor first_latent;  // to be kept clean in the sequence; undefined if told otherwise
  at::Tensor last_view;     // [B, 1, 4, 4], of the frame before the next
  int64_t height = 0, width = 0, frames = 0, chunks = 0;
  at::Device device = at::kCPU;

  bool guided() const { return options.guidance_scale != 1; }
  int64_t batch() const { return conditions.text.size(0); }

  /// The labels of the next n frames; the first one's motion begins at the frame before it.
  at::Tensor actions(const camera::Cameras& cameras, int64_t n) const {
    if (!model->reads_actions()) {
      return {};
    }
    if (conditions.actions.defined()) {
      require(frames + n <= conditions.actions.size(1),
              "world stream: actions were given for {} frames, not for {}",
              conditions.actions.size(1), frames + n);
      return conditions.actions.narrow(1, frames, n);
    }
    require(cameras.defined(), "world stream: this model reads the actions of poses, give poses");
    if (!last_view.defined()) {
      return models::actions_of(cameras);
    }
    return models::actions_of({at::cat({last_view, cameras.world_to_camera}, 1), {}}).slice(1, 1);
  }

  FrameInputs next_inputs(const camera::Cameras& cameras, int64_t n) const {
    return {at::arange(frames, frames + n).expand({batch(), n}), cameras, actions(cameras, n)};
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
  at::Tensor generate(int64_t n, const FrameInputs& inputs, const at::Tensor& given) {
    models::StreamInput in, unguided_in;
    in.conditions = conditions_of(*model, conditions, inputs);
    if (guided()) {
      unguided_in.conditions = conditions_of(*model, unguided, inputs);
    }
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

  /// Writes the keys and values of clean latents at `timestep`.
  void commit(const at::Tensor& latents, const FrameInputs& inputs, double timestep) {
    models::StreamInput in;
    in.latents = latents;
    in.timestep = at::full({latents.size(0), latents.size(1)}, timestep, latents.options());
    in.conditions = conditions_of(*model, conditions, inputs);
    in.commit = true;
    model->stream(in, *cache);
    if (guided()) {
      in.conditions = conditions_of(*model, unguided, inputs);
      model->stream(in, *unguided_cache);
    }
  }

  /// Makes the caches anew from the finished frames that the next ones look back at.
  void recall(const camera::Cameras& next) {
    const auto recalled = history->recall(next);
    cache->forget_frames();
    if (guided()) {
      unguided_cache->forget_frames();
    }
    commit(recalled.latents, recalled.frames, options.memory->timestep);
  }

  /// Takes clean latents as the next frames, committed at `timestep` unless there is a memory, and
  /// decodes them.
  Chunk finish(at::Tensor latents, const FrameInputs& inputs, double timestep) {
    if (history) {
      history->append(latents, inputs);
    } else {
      commit(latents, inputs, timestep);
    }
    if (inputs.cameras.defined()) {
      last_view = inputs.cameras.world_to_camera.slice(1, -1);
    }
    frames += latents.size(1);
    ++chunks;
    Chunk chunk{std::move(latents), {}};
    if (codec) {
      chunk.pixels = codec->decode_stream(chunk.latents, *decode_state);
    }
    return chunk;
  }

  void make_caches() {
    models::CacheOptions of_cache;
    of_cache.batch = batch();
    of_cache.window_frames = options.window_frames;
    of_cache.sink_frames = options.sink_frames;
    if (options.memory) {
      of_cache.window_frames = History::most_frames(*options.memory) + options.chunk_frames;
      of_cache.sink_frames = 0;
      history = std::make_unique<History>(*options.memory, options.seed);
    }
    cache = model->make_cache(of_cache, height, width);
    if (guided()) {
      unguided_cache = model->make_cache(of_cache, height, width);
    }
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
  require(!model->reads_cameras() || (options.fx > 0 && options.fy > 0),
          "world stream: normalised focal lengths must be positive, got {} {}", options.fx,
          options.fy);
  if (const auto& memory = options.memory) {
    require(memory->temporal >= 1 && memory->frames >= memory->temporal && memory->timestep >= 0 &&
                memory->timestep <= 1000,
            "world stream: a memory of {} frames, {} of them the last ones, at timestep {}: "
            "expected frames >= last ones >= 1 and a timestep in 0 … 1000",
            memory->frames, memory->temporal, memory->timestep);
  } else {
    require(options.window_frames >= options.chunk_frames + options.sink_frames,
            "world stream: a window of {} frames does not hold a chunk of {} and {} sink frames",
            options.window_frames, options.chunk_frames, options.sink_frames);
  }
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
  const at::Tensor first =
      first_latent.defined() ? first_latent.to(s.device, at::kFloat) : first_latent;
  s.conditions = with_image(*s.model, s.conditions, first, 1);
  s.first_latent = s.model->reads_first_latent() ? at::Tensor() : first;
  s.last_view = at::Tensor();
  s.height = height;
  s.width = width;
  s.frames = s.chunks = 0;
  if (s.guided()) {
    s.unguided = s.conditions.with_text_of(negative.to(s.device));
  }
  s.make_caches();
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
  const FrameInputs inputs = s.next_inputs(cameras, frames);
  if (s.history && s.frames > 0) {
    require(frames <= s.options.chunk_frames,
            "world stream: a context memory leaves room for chunks of {} frames, not of {}",
            s.options.chunk_frames, frames);
    s.recall(cameras);
  }
  return s.finish(s.generate(frames, inputs, given), inputs, s.options.context_timestep);
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
  const FrameInputs inputs = s.next_inputs(cameras, latents.size(1));
  return s.finish(latents.to(s.device, at::kFloat), inputs, 0);
}

int64_t WorldStream::frames() const {
  return impl_->frames;
}

}  // namespace minwm::stream
