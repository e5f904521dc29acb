// Whole Wan forwards: bidirectional, i2v, bf16, teacher forcing.

#include "wan_model.h"

namespace minwm::golden {
namespace {

at::Tensor per_frame(const at::Tensor& t, int64_t frames) {
  return t.dim() == 1 ? t.unsqueeze(1).expand({-1, frames}) : t;
}

models::ForwardInput forward_input(const Case& c) {
  models::ForwardInput input;
  input.latents = swap_layout(c.in("x").to(at::kFloat));
  input.timestep = per_frame(c.in("t"), input.latents.size(1)).to(at::kFloat);
  input.conditions = wan_conditions(c);
  return input;
}

void replay_forward(const Case& c, Report& report) {
  const auto model = wan_model(c);
  // Recomputing blocks in backward must change nothing; every second case runs that way.
  model->set_activation_checkpointing(integer(c, "frames") % 2 == 0);
  auto input = forward_input(c);
  if (c.has("in/y")) {
    input.conditions.image_latents = swap_layout(c.in("y"));
    input.conditions.image_features = c.in("clip_fea");
  }
  input.latents.requires_grad_();
  const at::Tensor flow = swap_layout(model->forward(input));
  report.compare("flow", flow, c.out("flow"));
  if (c.has("in/grad_out")) {
    (flow * c.in("grad_out")).sum().backward();
    compare_gradients(c, report, *model, {{"x", swap_layout(input.latents.grad())}});
  }
}

void replay_bf16(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto model = wan_model(c);
  const auto input = forward_input(c);
  const at::Tensor exact = swap_layout(model->forward(input));
  report.compare("flow_fp32", exact, c.out("flow_fp32"), 1e-4, 5e-5);
  model->set_compute_dtype(at::kBFloat16);
  const at::Tensor rounded = swap_layout(model->forward(input));
  report.compare("flow_bf16", rounded, c.out("flow_bf16").to(at::kFloat));
  const double error = (rounded - c.out("flow_fp32")).abs().mean().item<double>();
  report.check("bf16 error against float32",
               error <= c.config.at("upstream_mean_abs_err").get<double>(),
               "mean error " + std::to_string(error));
}

void replay_teacher_forcing(const Case& c, Report& report) {
  const auto model = wan_model(c);
  auto input = forward_input(c);
  input.latents.requires_grad_();
  input.clean_latents = swap_layout(c.in("clean_x")).requires_grad_();
  input.chunk_frames = integer(c, "num_frame_per_block");
  if (c.has("in/aug_t")) {
    input.clean_timestep = c.in("aug_t");
  }
  const at::Tensor flow = swap_layout(model->forward(input));
  report.compare("flow", flow, c.out("flow"));
  (flow * c.in("grad_out")).sum().backward();
  compare_gradients(c, report, *model,
                    {{"x", swap_layout(input.latents.grad())},
                     {"clean_x", swap_layout(input.clean_latents.grad())}});
}

const bool registered[] = {register_kind("wan.dit.forward", replay_forward),
                           register_kind("wan.dit.i2v_forward", replay_forward),
                           register_kind("wan.dit.forward_bf16", replay_bf16),
                           register_kind("wan.causal.teacher_forcing", replay_teacher_forcing)};

}  // namespace
}  // namespace minwm::golden
