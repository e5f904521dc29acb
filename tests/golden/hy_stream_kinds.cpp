// HY over its KV cache: minWM's rollout in both camera layouts, WorldPlay's with a memory that is
// made anew before every chunk.

#include "hy_case.h"
#include "minwm/camera/memory.h"
#include "minwm/camera/prope.h"
#include "minwm/nn/embedding.h"

namespace minwm::golden {
namespace {

/// A model, its cache and the clip's conditions.
struct Rollout {
  std::shared_ptr<models::HyBackbone> model;
  std::unique_ptr<models::KvCache> cache;
  models::Conditions conditions;

  const models::HyKvCache& hy_cache() const {
    return dynamic_cast<const models::HyKvCache&>(*cache);
  }
  /// One call; `conditions` are those of the frames of `latents` [1, n, C, h, w].
  at::Tensor call(const at::Tensor& latents, const models::Conditions& of_frames, double t,
                  bool commit) {
    models::StreamInput input;
    input.latents = latents;
    input.timestep = at::full({latents.size(0), latents.size(1)}, t);
    input.conditions = of_frames;
    input.commit = commit;
    return model->stream(input, *cache);
  }
};

Rollout make_rollout(const Case& c, int64_t window, const at::Tensor& latents) {
  Rollout out{hy_case_model(c), nullptr, hy_case_conditions(c)};
  models::CacheOptions options;
  options.batch = latents.size(0);
  options.window_frames = window;
  out.cache = out.model->make_cache(options, latents.size(3), latents.size(4));
  return out;
}

/// [1, N, A, D] as the cases have it.
at::Tensor heads_first(const at::Tensor& x) {
  return x.transpose(1, 2);
}

/// Our raw cache in the reference's forms. @param cameras  of the frames that the cache holds.
std::map<std::string, at::Tensor> reference_cache(const Rollout& rollout, int64_t layer,
                                                  const camera::Cameras& cameras, int64_t height,
                                                  int64_t width) {
  const auto& config = rollout.model->config();
  const auto view = rollout.hy_cache().layer(layer);
  const auto& text = rollout.hy_cache().text(layer).groups.at(0);
  const auto& dims = config.rope_dim_list;
  models::Geometry where;
  where.rotary = nn::rotary_table(view.frames, height, width,
                                  {{dims[0] / 2, dims[1] / 2, dims[2] / 2}, config.rope_theta});
  std::map<std::string, at::Tensor> out = {
      {"k_txt", heads_first(text.k)},
      {"v_txt", heads_first(text.v)},
      {"k_vision", heads_first(nn::apply_rotary(view.k, where.rotary))},
      {"v_vision", heads_first(view.v)}};
  if (cameras.defined()) {
    const auto m = camera::projective_matrices(cameras);
    where.p = m.p;
    where.p_inverse = m.p_inverse;
    const auto camera_path = [](const at::Tensor& x) { return heads_first(x.chunk(2, 2)[1]); };
    out["k_prope"] = camera_path(models::transform_keys(view.k, where));
    out["v_prope"] = camera_path(models::transform_values(view.v, where));
  }
  return out;
}

/// Every out/kv…: first and last block.
void compare_cache(const Case& c, Report& report, const Rollout& rollout,
                   const camera::Cameras& cameras, const at::Tensor& latents) {
  const auto& config = rollout.model->config();
  const bool stacked = c.kind == "hy.wp.rollout";
  for (const std::string block : {"kv0", "kv_last"}) {
    auto ours = reference_cache(rollout, block == "kv0" ? 0 : config.mm_double_blocks_depth - 1,
                                cameras, latents.size(3) / config.patch_size[1],
                                latents.size(4) / config.patch_size[2]);
    if (stacked) {
      ours["k_vision"] = at::cat({ours["k_vision"], ours["k_prope"]});
      ours["v_vision"] = at::cat({ours["v_vision"], ours["v_prope"]});
    }
    for (const auto& name : c.under("out/" + block + "/")) {
      const std::string full = block + "/" + name;
      report.check(full, ours.contains(name), "is not known");
      report.compare(full, ours[name], c.out(full));
    }
  }
}

/// A clip of hidden states, chunk by chunk.
struct Clip {
  at::Tensor latents;
  models::Conditions conditions;
  at::Tensor chunk(int64_t first, int64_t count) const { return latents.narrow(1, first, count); }
};

Clip clip_of(const Rollout& rollout, const at::Tensor& hidden_states) {
  const int64_t channels = rollout.model->config().in_channels;
  Clip clip{noisy_channels(hidden_states, channels).contiguous(), rollout.conditions};
  clip.conditions.image_latents = image_channels(hidden_states, channels).contiguous();
  return clip;
}

/// Complete sampling of every chunk from in/z, with the sampled latents as context.
void compare_sample(const Case& c, Report& report, Rollout& rollout, const Clip& noisy) {
  const auto chunk = integer(c, "chunk");
  const at::Tensor z = swap_layout(c.in("z")), sigmas = c.in("sigmas").to(at::kDouble),
                   times = c.in("timesteps").to(at::kDouble);
  at::Tensor sample = at::empty_like(z);
  rollout.cache->forget_frames();
  for (int64_t first = 0; first < z.size(1); first += chunk) {
    const auto conditions = noisy.conditions.frames(first, chunk);
    at::Tensor x = z.narrow(1, first, chunk);
    for (int64_t i = 0; i < times.numel(); ++i) {
      const double step = (sigmas[i + 1] - sigmas[i]).item<double>();
      x = x + step * rollout.call(x, conditions, times[i].item<double>(), false);
    }
    rollout.call(x, conditions, c.config.at("context_timestep").get<double>(), true);
    sample.narrow(1, first, chunk).copy_(x);
  }
  report.compare("sample", swap_layout(sample), c.out("sample"));
}

void compare_teacher_forcing(const Case& c, Report& report, Rollout& rollout, const Clip& noisy,
                             const Clip& clean, const at::Tensor& pred) {
  models::ForwardInput input;
  input.latents = noisy.latents;
  input.clean_latents = clean.latents;
  input.conditions = noisy.conditions;
  input.chunk_frames = integer(c, "chunk");
  input.timestep = c.in("chunk_t").repeat_interleave(input.chunk_frames).unsqueeze(0);
  input.clean_timestep =
      at::full_like(input.timestep, c.config.at("context_timestep").get<double>());
  const at::Tensor forced = swap_layout(rollout.model->forward(input));
  if (c.has("out/tf_video")) {
    report.compare("tf_video", forced, c.out("tf_video"));
  }
  report.compare("teacher forcing", forced, pred);
}

void replay_rollout(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const int64_t chunk = integer(c, "chunk"), chunks = integer(c, "num_chunks");
  const at::Tensor chunk_t = c.in("chunk_t");
  Rollout rollout = make_rollout(c, chunk * chunks, swap_layout(c.in("noisy")));
  const Clip noisy = clip_of(rollout, c.in("noisy")), clean = clip_of(rollout, c.in("clean"));
  const bool published = c.config.at("cache_layout").get<std::string>() == "rope_only";
  rollout.model->set_stream_switches({published && rollout.model->reads_cameras(),
                                      published && noisy.conditions.actions.defined()});
  const double context_t = c.config.at("context_timestep").get<double>();
  at::Tensor pred = at::empty_like(noisy.latents);
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t first = i * chunk;
    pred.narrow(1, first, chunk)
        .copy_(rollout.call(noisy.chunk(first, chunk), noisy.conditions.frames(first, chunk),
                            chunk_t[i].item<double>(), false));
    rollout.call(clean.chunk(first, chunk), clean.conditions.frames(first, chunk), context_t, true);
  }
  pred = swap_layout(pred);
  report.compare("pred", pred, c.out("pred"));
  compare_cache(c, report, rollout, rollout.conditions.cameras, noisy.latents);
  if (!published || (!noisy.conditions.cameras.defined() && !noisy.conditions.actions.defined())) {
    compare_teacher_forcing(c, report, rollout, noisy, clean, pred);
  }
  if (c.has("in/z")) {
    compare_sample(c, report, rollout, noisy);
  }
}

/// Conditions of these frames.
models::Conditions pick(const models::Conditions& clip, const at::Tensor& frames) {
  models::Conditions out = clip;
  out.cameras = {clip.cameras.world_to_camera.index_select(1, frames),
                 clip.cameras.intrinsics.index_select(1, frames)};
  out.actions = clip.actions.index_select(1, frames);
  out.image_latents = clip.image_latents.index_select(1, frames);
  return out;
}

void replay_worldplay(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const int64_t chunk = integer(c, "chunk");
  const at::Tensor noisy = swap_layout(c.in("noisy")), latents = swap_layout(c.in("latents")),
                   chunk_t = c.in("chunk_t"), points = c.in("points_local"),
                   views = c.in("viewmats")[0].to(at::kDouble);
  camera::MemoryOptions options;
  options.memory_frames = integer(c, "memory_frames");
  options.temporal_context = integer(c, "temporal_context_size");
  options.predicted_frames = chunk;
  Rollout rollout = make_rollout(c, options.memory_frames + 2 * chunk, noisy);
  rollout.conditions.image_latents = swap_layout(c.in("cond"));
  rollout.model->set_stream_switches({false, rollout.model->reads_actions()});
  at::Tensor pred = at::empty_like(noisy), frames;
  for (int64_t i = 0; i < integer(c, "num_chunks"); ++i) {
    const int64_t first = i * chunk;
    if (i > 0) {
      const std::string name = "selected/" + std::to_string(i);
      frames = at::tensor(camera::select_memory(views, first, points, options), at::kLong);
      report.equal(name, frames, c.out(name));
      rollout.cache->forget_frames();
      rollout.call(latents.index_select(1, frames), pick(rollout.conditions, frames),
                   c.config.at("context_timestep").get<double>(), true);
    }
    pred.narrow(1, first, chunk)
        .copy_(rollout.call(noisy.narrow(1, first, chunk), rollout.conditions.frames(first, chunk),
                            chunk_t[i].item<double>(), false));
  }
  report.compare("pred", swap_layout(pred), c.out("pred"));
  compare_cache(c, report, rollout, pick(rollout.conditions, frames).cameras, noisy);
}

const bool registered[] = {register_kind("hy.dit.rollout", replay_rollout),
                           register_kind("hy.wp.rollout", replay_worldplay)};

}  // namespace
}  // namespace minwm::golden
