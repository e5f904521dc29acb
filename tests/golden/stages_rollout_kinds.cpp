// Self-rollouts of the stand-in network: every call it gets, what comes out, and the gradients.

#include "case.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/levels.h"
#include "minwm/stages/rolling.h"
#include "standin.h"

namespace minwm::golden {
namespace {

using stages::Rollout;
using stages::RolloutDraws;
using stages::RolloutInput;
using stages::RolloutOptions;

std::string numbered(const char* format, int64_t a, int64_t b = 0) {
  char text[64];
  std::snprintf(text, sizeof(text), format, static_cast<int>(a), static_cast<int>(b));
  return text;
}

std::vector<double> numbers(const nlohmann::ordered_json& list) {
  std::vector<double> out;
  for (const auto& value : list) {
    if (value.get<double>() > 0) {  // a trailing 0 of the reference's list is no step
      out.push_back(value.get<double>());
    }
  }
  return out;
}

/// The requested step list as ours, which is always shifted: an unwarped one is shifted back first.
std::vector<double> step_list(const Case& c, const char* key, double shift) {
  std::vector<double> list = numbers(c.config.at(key));
  if (!c.config.value("warp_denoising_step", true)) {
    for (double& d : list) {
      d = 1000 * diffusion::shift_sigma(d / 1000, 1 / shift);
    }
  }
  return list;
}

std::vector<int64_t> integers(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kLong).contiguous().flatten();
  return {flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel()};
}

/// What the families' cases have in common.
RolloutOptions common_options(const Case& c, int64_t frames) {
  RolloutOptions options;
  options.chunk_frames = integer(c, "num_frame_per_block");
  options.window_frames = frames;
  options.context_noise = c.config.value("context_noise", 0.0);
  options.table_sigma = true;
  options.commit_last = true;
  return options;
}

/// The layout that a case stores, [B, T, C, h, w] or HY's [B, C, T, h, w], as ours.
at::Tensor ours(const at::Tensor& x, bool hy) {
  return hy ? swap_layout(x) : x;
}

void compare_call(const Case& c, Report& report, int64_t index, const Call& call, bool hy) {
  const std::string name = numbered("call/%03d/", index);
  report.compare(name + "x", call.x, ours(c.out(name + "x"), hy));
  report.compare(name + "t", call.t, c.out(name + "t"));
  if (c.has("out/" + name + "flow")) {  // HY's context calls have none
    report.compare(name + "flow", call.flow, ours(c.out(name + "flow"), hy));
  }
}

template <class Field>
at::Tensor column(const std::vector<Call>& calls, Field field) {
  std::vector<int64_t> values;
  for (const Call& call : calls) {
    values.push_back(static_cast<int64_t>(field(call)));
  }
  return at::tensor(values, at::kLong);
}

/// x, t and flow of every call, and which of them record gradients.
void compare_calls(const Case& c, Report& report, const std::vector<Call>& calls, bool hy = false) {
  for (size_t i = 0; i < calls.size(); ++i) {
    compare_call(c, report, static_cast<int64_t>(i), calls[i], hy);
  }
  if (!hy) {
    report.equal("call_start", column(calls, [](const Call& call) { return call.start; }),
                 c.out("call_start"));
    report.equal("call_grad", column(calls, [](const Call& call) { return call.grad; }),
                 c.out("call_grad"));
  }
}

/// The output, and the gradients of its product with a given tensor.
void compare_output(const Case& c, Report& report, const StandIn& model, const at::Tensor& latents,
                    bool hy = false) {
  report.compare("pred", latents, ours(c.out("pred"), hy));
  (latents * ours(c.in("grad_seed"), hy)).sum().backward();
  compare_stage_gradients(c, report, model);
}

void compare_levels(const Case& c, Report& report, const Rollout& rollout) {
  report.equal("denoised_timestep_from", at::scalar_tensor(std::lround(rollout.from), at::kLong),
               c.out("denoised_timestep_from"));
  report.equal("denoised_timestep_to", at::scalar_tensor(std::lround(rollout.to), at::kLong),
               c.out("denoised_timestep_to"));
}

std::shared_ptr<StandIn> recording(const Case& c, const std::string& prefix) {
  auto model = standin(c, prefix);
  model->record = true;
  return model;
}

void replay_wan(const Case& c, Report& report) {
  const int64_t n = integer(c, "num_frame_per_block");
  const int64_t blocks = c.has("in/num_generated_blocks")
                             ? integers(c.in("num_generated_blocks")).front()
                             : c.in("rollout_noise").size(1) / n;
  RolloutOptions options = common_options(c, blocks * n);
  options.shift = c.config.value("timestep_shift", 5.0);
  options.step_list = step_list(c, "denoising_step_list", options.shift);
  options.same_exit = c.config.value("same_step_across_blocks", true);
  RolloutInput input;
  input.conditions = standin_conditions(c);
  input.first_latent_of = [](const at::Tensor& latents) {  // the cases' stand-in VAE
    return latents.slice(1, -1) * 0.5 + 0.1;
  };
  RolloutDraws draws;
  draws.noise = c.in("rollout_noise").narrow(1, 0, blocks * n);
  const auto exits = integers(c.in("exit_index"));
  for (size_t block = 0; block < static_cast<size_t>(blocks); ++block) {
    const bool last = c.config.value("last_step_only", false);
    draws.exit_step.push_back(last ? static_cast<int64_t>(options.step_list.size()) - 1
                                   : exits.at(options.same_exit ? 0 : block));
  }
  draws.renoise = [&](int64_t chunk, int64_t step) {
    return c.in(numbered("renoise/b%02d_s%d", chunk, step));
  };
  const auto model = recording(c, "generator/");
  const Rollout rollout = self_rollout(*model, input, draws, options);
  compare_calls(c, report, model->calls);
  report.compare(
      "denoising_step_list",
      at::tensor(stages::rollout_timesteps(options.step_list, options.shift), at::kFloat),
      c.out("denoising_step_list"));
  compare_levels(c, report, rollout);
  const bool masked = c.has("out/gradient_mask_frames");
  report.check("loss mask", masked == rollout.loss_mask.defined());
  if (masked && rollout.loss_mask.defined()) {
    report.equal("gradient_mask_frames", rollout.loss_mask.to(at::kLong),
                 c.out("gradient_mask_frames"));
  }
  compare_output(c, report, *model, rollout.latents);
}

void replay_cf(const Case& c, Report& report) {
  RolloutDraws draws;
  draws.noise = c.in("rollout_noise");
  RolloutOptions options = common_options(c, draws.noise.size(1));
  options.shift = c.config.at("shift").get<double>();
  options.step_list = step_list(c, "denoising_step_list", options.shift);
  options.renoise_context = true;
  const auto& first = c.config.at("denoising_step_list_first_chunk");
  if (!first.is_null()) {
    options.first_chunk_step_list = step_list(c, "denoising_step_list_first_chunk", options.shift);
  }
  draws.exit_step.assign(static_cast<size_t>(draws.noise.size(1) / options.chunk_frames),
                         integer(c, "exit_other"));
  if (!first.is_null()) {
    draws.exit_step.front() = integer(c, "exit_first");
  }
  draws.renoise = [&](int64_t chunk, int64_t step) {
    return c.in(numbered("renoise/b%02d_s%d", chunk, step));
  };
  draws.context_noise = [&](int64_t chunk) { return c.in(numbered("context_noise/b%02d", chunk)); };
  RolloutInput input;
  input.conditions = standin_conditions(c);
  const auto model = recording(c, "");
  const Rollout rollout = self_rollout(*model, input, draws, options);
  compare_calls(c, report, model->calls);
  compare_levels(c, report, rollout);
  compare_output(c, report, *model, rollout.latents);
}

void replay_hy(const Case& c, Report& report) {
  RolloutDraws draws;
  draws.noise = swap_layout(c.in("rollout_noise"));
  const int64_t frames = draws.noise.size(1);
  RolloutOptions options = common_options(c, frames);
  options.mode = "full";
  options.shift = c.config.at("flow_shift").get<double>();
  options.step_list = numbers(c.config.at("dmd_denoising_steps"));
  options.solver = c.config.at("solver") == "euler" ? "euler" : "renoise";
  options.table_sigma = false;
  options.text_gradient = false;
  options.gradient_frames = c.config.value("enable_gradient_masking", true)
                                ? integer(c, "gradient_mask_last_n_frames")
                                : 0;
  const int64_t n = options.chunk_frames, steps = static_cast<int64_t>(options.step_list.size());
  draws.exit_step.assign(static_cast<size_t>(frames / n),
                         c.has("in/k_i") ? integers(c.in("k_i")).front() : steps - 1);
  draws.renoise = [&](int64_t chunk, int64_t step) {
    return swap_layout(c.in(numbered("renoise/b%02d_s%d", chunk, step)));
  };
  RolloutInput input;
  input.conditions = hy_conditions(c, frames);
  const auto model = recording(c, "generator/");
  const Rollout rollout = self_rollout(*model, input, draws, options);
  compare_calls(c, report, model->calls, true);
  report.equal("call_cache", column(model->calls, [](const Call& call) { return call.commit; }),
               c.out("call_cache"));
  // The reference records gradients for chunks that the mask takes out again as a whole; we do not.
  auto kept = integers(c.out("call_grad"));
  for (size_t i = 0; i < kept.size() && options.gradient_frames > 0; ++i) {
    const int64_t end = (static_cast<int64_t>(i) / (steps + 1) + 1) * n;
    kept[i] = end > frames - options.gradient_frames ? kept[i] : 0;
  }
  report.equal("call_grad", column(model->calls, [](const Call& call) { return call.grad; }),
               at::tensor(kept, at::kLong));
  report.compare("call0_hidden", model->calls.front().hidden, swap_layout(c.out("call0_hidden")));
  compare_output(c, report, *model, rollout.latents, true);
}

/// The reference also commits the oldest block of the first, partial windows, and overwrites it
/// before anybody reads it. We do not; here the same call is made beside the rollout.
std::vector<Call> with_overwritten_commits(StandIn& model, const std::vector<Call>& made,
                                           const models::Conditions& conditions,
                                           const RolloutOptions& options) {
  const auto partial = static_cast<size_t>(options.step_list.size()) - 1;
  std::vector<Call> calls;
  for (size_t i = 0; i < made.size(); ++i) {
    calls.push_back(made[i]);
    if (i >= partial) {
      continue;
    }
    stages::LevelOptions levels;
    levels.shift = options.shift;
    levels.table_sigma = options.table_sigma;
    const at::Tensor sigma = stages::sigma_of(made[i].t, levels);
    const at::Tensor x0 = diffusion::predict_x0(made[i].x, made[i].flow, sigma);
    models::StreamInput in;
    in.latents = x0.narrow(1, 0, options.chunk_frames);
    in.timestep = at::full({x0.size(0), options.chunk_frames}, options.context_noise);
    in.conditions = conditions.frames(0, options.chunk_frames);
    in.commit = true;
    model.calls.clear();
    model.stream(in, *model.make_cache({}, x0.size(3), x0.size(4)));
    calls.push_back(model.calls.front());
  }
  return calls;
}

void replay_rolling(const Case& c, Report& report) {
  stages::RollingDraws draws;
  draws.noise = c.in("rollout_noise");
  const int64_t frames = draws.noise.size(1);
  RolloutOptions options = common_options(c, frames);
  options.shift = c.config.at("shift").get<double>();
  options.step_list = step_list(c, "denoising_step_list", options.shift);
  options.gradient_frames = 0;
  const int64_t n = options.chunk_frames, levels = static_cast<int64_t>(options.step_list.size());
  options.window_frames = frames + levels * n;
  draws.exit_window = integers(c.in("exit_window")).front();
  int64_t drawn = 0;
  draws.renoise = [&](int64_t window, int64_t chunk) {  // a whole window's noise for each chunk
    const at::Tensor all = c.in(numbered("renoise/%03d", drawn++));
    const int64_t first = std::max<int64_t>(0, window - levels + 1);
    return all.unflatten(0, {draws.noise.size(0), -1}).narrow(1, (chunk - first) * n, n);
  };
  RolloutInput input;
  input.conditions = standin_conditions(c);
  const auto model = recording(c, "");
  const Rollout rollout = rolling_rollout(*model, input, draws, options);
  const auto calls =
      with_overwritten_commits(*model, std::vector<Call>(model->calls), input.conditions, options);
  compare_calls(c, report, calls);
  report.equal("call_update", column(calls, [](const Call& call) { return call.commit; }),
               c.out("call_update"));
  compare_output(c, report, *model, rollout.latents);
}

const bool registered = register_kind("stages.wan.selfrollout.trace", replay_wan) &&
                        register_kind("stages.cf.selfrollout.trace", replay_cf) &&
                        register_kind("stages.hy.selfrollout.trace", replay_hy) &&
                        register_kind("stages.rolling.train.trace", replay_rolling);

}  // namespace
}  // namespace minwm::golden
