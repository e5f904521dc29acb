// The diffusion wrapper around the network and the few-step streaming pipeline.

#include "minwm/diffusion/flow_match.h"
#include "wan_model.h"

namespace minwm::golden {
namespace {

diffusion::FlowMatchTable table_of(const Case& c) {
  diffusion::FlowMatchTable::Options options;
  options.shift = c.config.at("timestep_shift").get<double>();
  return diffusion::FlowMatchTable(options);
}

void replay_wrapper(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto model = wan_model(c, "model.");
  const auto table = table_of(c);
  const auto every = c.config.at("scheduler").at("stored_every").get<int64_t>();
  report.compare("scheduler_sigmas", table.sigmas().slice(0, 0, std::nullopt, every),
                 c.out("scheduler_sigmas"));
  report.compare("scheduler_timesteps", table.timesteps().slice(0, 0, std::nullopt, every),
                 c.out("scheduler_timesteps"));
  models::ForwardInput input;
  input.latents = c.in("x");
  input.timestep = c.in("timestep");
  input.conditions = wan_conditions(c);
  if (c.config.at("causal").get<bool>()) {
    input.clean_latents = c.in("clean_x");
    input.chunk_frames = integer(c, "num_frame_per_block");
  } else {
    input.timestep = input.timestep.narrow(1, 0, 1).expand_as(input.timestep);
  }
  const at::Tensor flow = model->forward(input);
  report.compare("flow", flow, c.out("flow"));
  report.compare("x0", table.x0_from_flow(flow, input.latents, c.in("timestep")), c.out("x0"));
}

void replay_few_step(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto model = wan_model(c, "model.");
  const auto table = table_of(c);
  const auto requested = c.config.at("denoising_step_list").get<std::vector<double>>();
  const at::Tensor levels = c.config.at("warp_denoising_step").get<bool>()
                                ? table.warp(requested)
                                : at::tensor(requested).to(at::kFloat);
  report.compare("denoising_step_list", levels, c.out("denoising_step_list"));
  const auto conditions = wan_conditions(c);
  const models::CacheOptions options{integer(c, "batch"), integer(c, "cache_frames"),
                                     integer(c, "sink_size")};
  auto cache = model->make_cache(options, integer(c, "height"), integer(c, "width"));
  auto& wan_cache = dynamic_cast<models::WanKvCache&>(*cache);
  std::vector<at::Tensor> clips;
  int64_t held = 0;  // frames in the window while the last block was generated
  auto call = [&](const at::Tensor& latents, double t, bool commit) {
    models::StreamInput input;
    input.latents = latents;
    input.timestep = at::full({latents.size(0), latents.size(1)}, t);
    input.conditions = conditions;
    input.conditions.cameras = conditions.cameras.frames(cache->frames_seen(), latents.size(1));
    input.commit = commit;
    return model->stream(input, *cache);
  };
  auto commit = [&](const at::Tensor& latents, double t) {
    call(latents, t, true);
    held = wan_cache.frames_held();
    clips.push_back(latents);
  };
  const int64_t block = integer(c, "num_frame_per_block");
  if (c.has("in/initial_latent")) {
    const at::Tensor given = c.in("initial_latent");
    const bool first_alone = c.config.at("independent_first_frame").get<bool>();
    for (int64_t first = 0; first < given.size(1);) {
      const int64_t count = first == 0 && first_alone ? 1 : block;
      commit(given.narrow(1, first, count), 0);
      first += count;
    }
  }
  int64_t renoise = 0, first = 0;
  for (const int64_t count : c.config.at("generated_schedule").get<std::vector<int64_t>>()) {
    at::Tensor x = c.in("noise").narrow(1, first, count);
    for (int64_t s = 0; s < levels.size(0); ++s) {
      const at::Tensor t = levels[s].expand({x.size(0), count});
      x = table.x0_from_flow(call(x, levels[s].item<double>(), false), x, t);
      if (s + 1 < levels.size(0)) {
        const at::Tensor noise = c.in("renoise." + std::to_string(renoise++)).view(x.sizes());
        x = table.add_noise(x, noise, levels[s + 1].expand({x.size(0), count}));
      }
    }
    commit(x, c.config.at("context_noise").get<double>());
    first += count;
  }
  report.compare("latents", at::cat(clips, 1), c.out("latents"));
  const int64_t per_frame = integer(c, "frame_seqlen");
  report.equal("kv_global_end", at::tensor({cache->frames_seen() * per_frame}, at::kLong),
               c.out("kv_global_end"));
  report.equal("kv_local_end", at::tensor({held * per_frame}, at::kLong), c.out("kv_local_end"));
}

const bool registered[] = {register_kind("wan.wrapper.forward", replay_wrapper),
                           register_kind("wan.pipeline.few_step", replay_few_step)};

}  // namespace
}  // namespace minwm::golden
