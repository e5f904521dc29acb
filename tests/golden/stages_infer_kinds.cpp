// Whole sampling loops of the reference on the stand-in network, through the stream room. Spec
// stages 3, 4, 11, 20.

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stream/generate.h"
#include "standin.h"

namespace minwm::golden {
namespace {

constexpr double kScheduleShift = 5;

/// Noise of the case: in/noise holds the generated frames, in/renoise/b##_s# what is added after a
/// step of a generated block. Given blocks come first and need none.
stream::NoiseSource case_noise(const Case& c, int64_t given_blocks, int64_t block) {
  return [&c, given_blocks, block](int64_t chunk, int64_t step, at::IntArrayRef shape) {
    const int64_t generated = chunk - given_blocks;
    return step == 0 ? c.in("noise").narrow(1, generated * block, shape[1])
                     : c.in(fmt::format("renoise/b{:02}_s{}", generated, step - 1));
  };
}

stream::GenerateRequest case_request(const Case& c) {
  stream::GenerateRequest request;
  request.conditions = standin_conditions(c);
  if (c.has("in/initial_latent")) {
    request.given_latents = c.in("initial_latent");
  }
  const at::Tensor noise = c.in("noise");
  request.height = noise.size(3);
  request.width = noise.size(4);
  auto& options = request.stream;
  options.chunk_frames = integer(c, "num_frame_per_block");
  options.window_frames = request.conditions.cameras.world_to_camera.size(1);
  options.fx = options.fy = 1;  // the cameras are given whole
  const int64_t given = request.given_latents.defined() ? request.given_latents.size(1) : 0;
  options.noise = case_noise(c, given / options.chunk_frames, options.chunk_frames);
  return request;
}

/// N steps of UniPC under guidance.
void use_many_steps(const Case& c, stream::GenerateRequest& request) {
  auto& options = request.stream;
  options.solver = stream::Solver::kUniPc;
  options.sigmas = diffusion::solver_sigmas(options.solver, integer(c, "steps"),
                                            c.config.value("shift", kScheduleShift));
  options.guidance_scale = c.config.at("guidance_scale").get<double>();
  request.negative = standin_negative(c);
}

std::vector<float> timesteps(const std::vector<Call>& calls) {
  std::vector<float> all;
  for (const auto& call : calls) {
    all.push_back(call.t.flatten()[0].item<float>());
  }
  return all;
}

void compare_calls(const Case& c, Report& report, const std::vector<Call>& calls) {
  report.compare("call_t", at::tensor(timesteps(calls)), c.out("call_t"));
  report.equal("num_calls", at::scalar_tensor(static_cast<int64_t>(calls.size()), at::kLong),
               c.out("num_calls"));
  if (c.has("out/call_start")) {
    std::vector<int64_t> starts;
    for (const auto& call : calls) {
      starts.push_back(call.start);
    }
    report.equal("call_start", at::tensor(starts, at::kLong), c.out("call_start"));
  }
}

void replay_bidirectional(const Case& c, Report& report) {
  const auto model = standin(c);
  model->record = true;
  stream::GenerateRequest request = case_request(c);
  request.mode = stream::Mode::kBidirectional;
  use_many_steps(c, request);
  report.compare("latents", stream::generate_latents(model, request), c.out("latents"));
  compare_calls(c, report, model->forwards);
}

/// Blocks are committed at t = 0 whatever context_noise says.
void replay_autoregressive(const Case& c, Report& report) {
  const auto model = standin(c);
  model->record = true;
  stream::GenerateRequest request = case_request(c);
  use_many_steps(c, request);
  report.compare("latents", stream::generate_latents(model, request), c.out("latents"));
  compare_calls(c, report, model->calls);
}

/// The list is warped by the reference's table; a trailing 0 is dropped.
void replay_few_step(const Case& c, Report& report) {
  const auto model = standin(c);
  model->record = true;
  stream::GenerateRequest request = case_request(c);
  auto list = c.config.at("denoising_step_list").get<std::vector<double>>();
  if (list.back() == 0) {
    list.pop_back();
  }
  request.stream.solver = stream::Solver::kRenoise;
  request.stream.sigmas = diffusion::few_step_sigmas(list, c.config.value("shift", kScheduleShift));
  request.stream.context_timestep = c.config.at("context_noise").get<double>();
  report.compare("latents", stream::generate_latents(model, request), c.out("latents"));
  compare_calls(c, report, model->calls);
}

const bool registered = register_kind("stages.wan.infer.bidir", replay_bidirectional) &&
                        register_kind("stages.wan.infer.ar", replay_autoregressive) &&
                        register_kind("stages.wan.infer.fewstep", replay_few_step);

}  // namespace
}  // namespace minwm::golden
