// Streaming over the KV cache, its gradients, and that it equals teacher forcing.

#include "minwm/camera/prope.h"
#include "minwm/nn/embedding.h"
#include "wan_model.h"

namespace minwm::golden {
namespace {

models::StreamInput chunk_input(const models::Conditions& conditions, const at::Tensor& latents,
                                const at::Tensor& t, int64_t first, int64_t count) {
  models::StreamInput input;
  input.latents = latents.narrow(1, first, count);
  input.timestep = t.expand({latents.size(0), count}).contiguous();
  input.conditions = conditions;
  input.conditions.cameras = conditions.cameras.frames(first, count);
  return input;
}

std::unique_ptr<models::WanKvCache> case_cache(const Case& c, models::WanBackbone& model) {
  const models::CacheOptions options{integer(c, "batch"), integer(c, "cache_frames"),
                                     integer(c, "sink_size")};
  auto cache = model.make_cache(options, integer(c, "height"), integer(c, "width"));
  return std::unique_ptr<models::WanKvCache>(dynamic_cast<models::WanKvCache*>(cache.release()));
}

/// Our raw cache in the reference's form: transformed, slots in slid order, unused slots zero.
void compare_cache(const Case& c, Report& report, const models::WanBackbone& model,
                   const models::WanKvCache& cache, const models::Conditions& conditions) {
  const int64_t per_frame = integer(c, "frame_seqlen"), slots = integer(c, "cache_frames");
  const int64_t head_dim = model.config().dim / model.config().num_heads;
  const int64_t height = integer(c, "height") / 2, width = integer(c, "width") / 2;
  for (const int64_t layer : {int64_t{0}, model.config().num_layers - 1}) {
    const auto view = cache.layer(layer);
    models::Geometry where;
    where.rotary = nn::rotary_table(view.frames, height, width, head_dim);
    auto padded = [&](const at::Tensor& x) {
      return at::constant_pad_nd(x, {0, 0, 0, 0, 0, slots * per_frame - x.size(1)});
    };
    const std::string name = "kv_cache." + std::to_string(layer), index = std::to_string(layer);
    report.compare(name + ".k", padded(nn::apply_rotary(view.k, where.rotary)), c.out(name + ".k"));
    report.compare(name + ".v", padded(view.v), c.out(name + ".v"));
    report.compare("crossattn_cache." + index + ".k", cache.cross(layer).k,
                   c.out("crossattn_cache." + index + ".k"));
    report.compare("crossattn_cache." + index + ".v", cache.cross(layer).v,
                   c.out("crossattn_cache." + index + ".v"));
    if (conditions.cameras.defined()) {
      const at::Tensor frames = at::tensor(view.frames, at::kLong);
      const auto m =
          camera::projective_matrices({conditions.cameras.world_to_camera.index_select(1, frames),
                                       conditions.cameras.intrinsics.index_select(1, frames)});
      const at::Tensor inverse = m.p_inverse.transpose(2, 3);
      report.compare("prope_" + name + ".k", padded(nn::apply_frame_matrices(view.k, inverse)),
                     c.out("prope_" + name + ".k"));
      report.compare("prope_" + name + ".v", padded(nn::apply_frame_matrices(view.v, inverse)),
                     c.out("prope_" + name + ".v"));
    }
  }
}

void compare_with_teacher_forcing(const Case& c, Report& report, models::WanBackbone& model,
                                  const models::Conditions& conditions, const at::Tensor& noisy,
                                  const at::Tensor& clean, const at::Tensor& t,
                                  const at::Tensor& flow, int64_t chunk) {
  models::ForwardInput input;
  input.latents = noisy;
  input.clean_latents = clean;
  input.timestep = t.repeat_interleave(chunk).expand({clean.size(0), -1}).contiguous();
  input.clean_timestep = at::full_like(input.timestep, c.config.at("context_noise").get<double>());
  input.conditions = conditions;
  input.chunk_frames = chunk;
  report.compare("teacher forcing", model.forward(input), flow);
}

void replay_stream(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto model = wan_model(c);
  const auto conditions = wan_conditions(c);
  auto cache = case_cache(c, *model);
  const at::Tensor noisy = c.in("noisy"), clean = swap_layout(c.in("clean")), t = c.in("t");
  const int64_t steps = integer(c, "steps"), per_frame = integer(c, "frame_seqlen");
  const at::Tensor context_t = at::tensor({c.config.at("context_noise").get<float>()});
  at::Tensor flow = at::zeros_like(c.out("flow")), update = at::zeros_like(clean);
  std::vector<int64_t> log;
  int64_t first = 0, block = 0;
  for (const int64_t count : c.config.at("schedule").get<std::vector<int64_t>>()) {
    auto record = [&](int64_t step) {
      cache->make_room(count);
      log.insert(log.end(), {first, count, step, (cache->frames_seen() + count) * per_frame,
                             (cache->frames_held() + count) * per_frame});
    };
    for (int64_t s = 0; s < steps && block >= integer(c, "prefill_blocks"); ++s) {
      const auto input = chunk_input(conditions, swap_layout(noisy[s]), t[s][block], first, count);
      flow[s].narrow(2, first, count).copy_(swap_layout(model->stream(input, *cache)));
      record(s);
    }
    auto input = chunk_input(conditions, clean, context_t, first, count);
    update.narrow(1, first, count).copy_(model->stream(input, *cache));
    record(-1);
    input.commit = true;
    model->stream(input, *cache);
    first += count;
    ++block;
  }
  report.compare("flow", flow, c.out("flow"));
  report.compare("flow_cache_pass", swap_layout(update), c.out("flow_cache_pass"));
  report.equal("index_log", at::tensor(log, at::kLong).view({-1, 5}), c.out("index_log"));
  compare_cache(c, report, *model, *cache, conditions);
  const auto schedule = c.config.at("schedule").get<std::vector<int64_t>>();
  if (c.config.at("equals_teacher_forcing").get<bool>()) {
    compare_with_teacher_forcing(c, report, *model, conditions, swap_layout(noisy[0]), clean, t[0],
                                 swap_layout(flow[0]), schedule.front());
  }
}

void replay_stream_grad(const Case& c, Report& report) {
  const auto model = wan_model(c);
  const auto conditions = wan_conditions(c);
  auto cache = case_cache(c, *model);
  const at::Tensor x = swap_layout(c.in("x")).requires_grad_(), clean = swap_layout(c.in("clean")),
                   t = c.in("t");
  std::vector<at::Tensor> flows;
  int64_t first = 0, block = 0;
  for (const int64_t count : c.config.at("schedule").get<std::vector<int64_t>>()) {
    flows.push_back(model->stream(chunk_input(conditions, x, t[block++], first, count), *cache));
    auto update = chunk_input(conditions, clean, at::zeros({1}), first, count);
    update.commit = true;
    model->stream(update, *cache);
    first += count;
  }
  const at::Tensor flow = swap_layout(at::cat(flows, 1));
  report.compare("flow", flow, c.out("flow"));
  (flow * c.in("grad_out")).sum().backward();
  compare_gradients(c, report, *model, {{"x", swap_layout(x.grad())}});
}

const bool registered[] = {register_kind("wan.causal.stream", replay_stream),
                           register_kind("wan.causal.stream_grad", replay_stream_grad)};

}  // namespace
}  // namespace minwm::golden
