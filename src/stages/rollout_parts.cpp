#include "rollout_parts.h"

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/stages/levels.h"

namespace minwm::stages {

at::Tensor with_given(const at::Tensor& latents, const at::Tensor& given) {
  return given.defined() ? at::cat({given, latents.slice(1, 1)}, 1) : latents;
}

at::Tensor level_timesteps(const at::Tensor& latents, double level, bool given) {
  at::Tensor t =
      at::full({latents.size(0), latents.size(1)}, level, latents.options().dtype(at::kFloat));
  if (given) {
    t.select(1, 0).zero_();
  }
  return t;
}

at::Tensor rollout_sigma(const at::Tensor& timestep, const RolloutOptions& options) {
  LevelOptions levels;
  levels.shift = options.shift;
  levels.table_sigma = options.table_sigma;
  return sigma_of(timestep, levels);
}

std::unique_ptr<models::KvCache> rollout_cache(models::Backbone& model, const at::Tensor& latents,
                                               int64_t frames, const RolloutOptions& options) {
  models::CacheOptions cache;
  cache.batch = latents.size(0);
  cache.window_frames =
      std::min(options.window_frames, std::max(frames, options.sink_frames + options.chunk_frames));
  cache.sink_frames = options.sink_frames;
  cache.sink_follows_window = options.sink_follows_window;
  return model.make_cache(cache, latents.size(3), latents.size(4));
}

void check_rollout(const RolloutInput& input, const at::Tensor& noise,
                   const RolloutOptions& options) {
  require(noise.defined() && noise.dim() == 5, "rollout: noise must be [B, F, C, h, w]");
  const int64_t frames = noise.size(1), chunk = options.chunk_frames;
  require(!options.step_list.empty(), "rollout.step_list: at least one timestep is needed");
  require(chunk > 0 && frames > 0 && frames % chunk == 0,
          "rollout: {} latent frames are not a multiple of rollout.chunk_frames = {}", frames,
          chunk);
  require(options.sink_frames >= 0 && options.sink_frames + chunk <= options.window_frames,
          "rollout.window_frames = {} does not hold a chunk of {} and {} sink frames",
          options.window_frames, chunk, options.sink_frames);
  require(options.gradient_frames >= 0, "rollout.gradient_frames = {}: expected 0 or more",
          options.gradient_frames);
  const camera::Cameras& cameras = input.conditions.cameras;
  require(!cameras.defined() || cameras.world_to_camera.size(1) >= frames,
          "rollout: {} cameras for {} latent frames",
          cameras.defined() ? cameras.world_to_camera.size(1) : 0, frames);
  const at::Tensor& given = input.first_latent;
  require(!given.defined() || given.sizes() == noise.narrow(1, 0, 1).sizes(),
          "rollout: the first latent must be [B, 1, C, h, w] like the noise");
}

int64_t draw_chunk_count(const at::Tensor& latents, const StepAddress& address,
                         const std::string& prefix, const RolloutOptions& options) {
  const int64_t n = options.chunk_frames, frames = latents.size(1);
  require(n > 0 && frames >= n, "rollout: {} latent frames do not hold a chunk of {}", frames, n);
  const int64_t most = frames / n;
  if (options.minimum_frames <= 0) {
    return most;
  }
  const int64_t least = std::clamp<int64_t>(options.minimum_frames / n, 1, most);
  return least + random_integer(most - least + 1, {address.seed, prefix + ".chunks",
                                                   static_cast<uint64_t>(address.step)});
}

void keep_end(Rollout& rollout, const at::Tensor& latents, const RolloutInput& input,
              const RolloutOptions& options) {
  const int64_t frames = latents.size(1), kept = options.gradient_frames;
  rollout.latents = latents;
  int64_t masked = input.first_latent.defined() ? 1 : 0;
  if (input.first_latent_of && kept > 0 && frames > kept) {
    // The score models know clips that begin with a first latent, which alone stands for one frame.
    const int64_t old = frames - kept + 1;
    at::Tensor first;
    {
      at::NoGradGuard constant;
      first = input.first_latent_of(latents.narrow(1, 0, old).detach());
    }
    require(first.sizes() == latents.narrow(1, 0, 1).sizes(),
            "rollout: the codec's first latent does not have the shape of the rollout's");
    rollout.latents = at::cat({first, latents.slice(1, old)}, 1);
    rollout.first_frame = frames - kept;
    masked = options.chunk_frames;
  }
  if (masked > 0) {
    rollout.loss_mask = at::ones({rollout.latents.size(1)}, latents.options().dtype(at::kFloat));
    rollout.loss_mask.narrow(0, 0, masked).zero_();
  }
}

}  // namespace minwm::stages
