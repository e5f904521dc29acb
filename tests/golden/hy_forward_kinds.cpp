// Whole HY forwards: bidirectional, chunk-causal, teacher forcing, the base model's own form; and
// one block.

#include "hy_case.h"
#include "minwm/camera/prope.h"
#include "minwm/nn/attention.h"

namespace minwm::golden {
namespace {

models::ForwardInput forward_input(const Case& c, const at::Tensor& hidden_states,
                                   int64_t channels) {
  models::ForwardInput input;
  input.latents = noisy_channels(hidden_states, channels);
  input.conditions = hy_case_conditions(c);
  input.conditions.image_latents = image_channels(hidden_states, channels);
  const int64_t batch = input.latents.size(0);
  input.timestep = c.in("timestep").view({batch, -1}).expand({batch, input.latents.size(1)});
  if (c.has("in/timestep_txt")) {
    input.text_timestep = c.in("timestep_txt").expand({batch});
  }
  return input;
}

/// Compares the flow and every gradient; parameters that must have none may have zeros.
void compare_backward(const Case& c, Report& report, const models::HyBackbone& model,
                      const at::Tensor& flow, const at::Tensor& hidden_states) {
  const at::Tensor video = swap_layout(flow);
  report.compare("video", video, c.out("video"));
  if (!c.has("in/grad_video")) {
    return;
  }
  (video * c.in("grad_video")).sum().backward();
  compare_gradients(c, report, model, {{"in/hidden_states", hidden_states.grad()}});
  const auto known = model.named_parameters();
  for (const auto& name : c.config.value("params_without_grad", std::vector<std::string>{})) {
    const at::Tensor& grad = known[name].grad();
    report.check(name, !grad.defined() || grad.abs().max().item<double>() == 0, "has a gradient");
  }
}

void replay_forward(const Case& c, Report& report) {
  const auto model = hy_case_model(c);
  const at::Tensor hidden = c.in("hidden_states").requires_grad_();
  auto input = forward_input(c, hidden, model->config().in_channels);
  // Recomputing blocks in backward must change nothing; some of the cases run that way.
  model->set_activation_checkpointing(input.latents.size(0) > 1);
  if (c.config.contains("num_frame_per_block")) {
    input.chunk_frames = integer(c, "num_frame_per_block");
  }
  compare_backward(c, report, *model, model->forward(input), hidden);
}

void replay_base(const Case& c, Report& report) {
  const auto model = hy_case_model(c);
  const at::Tensor hidden = c.in("hidden_states");
  auto input = forward_input(c, hidden, model->config().in_channels);
  input.text_timestep = c.in("timestep");
  compare_backward(c, report, *model, model->forward(input), hidden);
}

/// The same network with the conditioning channels counted to the latents, so that the clean half
/// has its own, as the reference has it. Ours has one for both halves: gradients with respect to
/// them are sums there.
std::shared_ptr<models::HyBackbone> with_wide_latents(const Case& c) {
  auto config = hy_config(c);
  config.in_channels = 2 * config.in_channels + 1;
  auto tensors = parameters(c);
  at::Tensor& weight = tensors.at("img_in.proj.weight");
  weight = at::constant_pad_nd(weight, {0, 0, 0, 0, 0, 0, 0, config.in_channels + 1});
  auto model = std::make_shared<models::HyBackbone>(config, 0);
  models::load_state(*model, tensors, c.path);
  return model;
}

void replay_teacher_forcing(const Case& c, Report& report) {
  const at::Tensor hidden = c.in("hidden_states").requires_grad_(), clean = c.in("clean_x");
  const auto model = hy_case_model(c);
  const int64_t channels = model->config().in_channels;
  const auto forced = [&](const at::Tensor& noisy, int64_t latents) {
    auto input = forward_input(c, noisy, latents);
    input.clean_latents = noisy_channels(clean, latents);
    input.clean_timestep = c.in("aug_timesteps").view(input.timestep.sizes());
    input.chunk_frames = integer(c, "num_frame_per_block");
    return input;
  };
  const auto wide = with_wide_latents(c);
  auto input = forced(hidden, 2 * channels + 1);
  input.conditions.image_latents = at::Tensor();
  (swap_layout(wide->forward(input)) * c.in("grad_video")).sum().backward();
  report.check("conditioning channels",
               at::equal(image_channels(hidden, channels), image_channels(clean, channels)),
               "differ between the clean and the noisy half");
  // Of what reaches the hidden states the case is compared with the form above.
  const at::Tensor same = hidden.detach();
  compare_backward(c, report, *model, model->forward(forced(same, channels)), hidden);
}

/// Attention of form (a): text and image see both; the camera path's queries are the image's.
models::HyBlockImpl::Heads attend_all(const models::HyBlockImpl::Rows& rows,
                                      const models::Geometry& where) {
  const at::Tensor q = models::transform_queries(rows.image.q, where),
                   k = models::transform_keys(rows.image.k, where),
                   v = models::transform_values(rows.image.v, where);
  const int64_t heads = rows.text.k.size(2), text = rows.text.k.size(1);
  const auto path = [&](const at::Tensor& x, int64_t i) { return x.narrow(2, i * heads, heads); };
  const auto keys = [&](const at::Tensor& own, const at::Tensor& image, int64_t i) {
    return at::cat({own, path(image, i)}, 1);
  };
  const at::Tensor out =
      nn::attend(keys(rows.text.q, q, 0), keys(rows.text.k, k, 0), keys(rows.text.v, v, 0));
  at::Tensor image = out.slice(1, text);
  if (where.camera()) {
    const at::Tensor seen =
        nn::attend(path(q, 1), keys(rows.text.k, k, 1), keys(rows.text.v, v, 1));
    image = at::cat({image, seen}, 2);
  }
  return {image.contiguous(), out.narrow(1, 0, text).contiguous()};
}

void replay_block(const Case& c, Report& report) {
  models::HyBlock block(hy_config(c));
  models::load_state(*block, parameters(c), c.path);
  const int64_t frames = integer(c, "frames"), tokens = integer(c, "tokens_per_frame");
  const auto every_second = [](const at::Tensor& x) { return x.slice(1, 0, x.size(1), 2); };
  models::HyBlockImpl::Call call;
  call.geometry.rotary =
      at::complex(every_second(c.in("cos")).contiguous(), every_second(c.in("sin")).contiguous());
  if (c.has("in/viewmats")) {
    const auto m = camera::projective_matrices({c.in("viewmats"), c.in("Ks")});
    call.geometry.p = m.p;
    call.geometry.p_inverse = m.p_inverse;
  }
  const at::Tensor img = c.in("img").requires_grad_(), txt = c.in("txt").requires_grad_(),
                   vec_frame = c.in("vec_frame").requires_grad_(),
                   vec_txt = c.in("vec_txt").requires_grad_();
  call.image = {vec_frame, at::arange(frames, at::kLong).unsqueeze(0)};
  call.text = {vec_txt, at::zeros({1, 1}, at::kLong)};
  const auto out = block->forward(
      {img.view({img.size(0), frames, tokens, img.size(2)}), txt}, call,
      [&](const models::HyBlockImpl::Rows& rows) { return attend_all(rows, call.geometry); },
      at::kFloat);
  const at::Tensor image = out.image.view(img.sizes());
  report.compare("img", image, c.out("img"));
  report.compare("txt", out.text, c.out("txt"));
  ((image * c.in("grad_img")).sum() + (out.text * c.in("grad_txt")).sum()).backward();
  compare_gradients(c, report, *block,
                    {{"in/img", img.grad()},
                     {"in/txt", txt.grad()},
                     {"in/vec_frame", vec_frame.grad()},
                     {"in/vec_txt", vec_txt.grad()}});
}

const bool registered[] = {register_kind("hy.dit.forward_bi", replay_forward),
                           register_kind("hy.dit.forward_causal", replay_forward),
                           register_kind("hy.dit.forward_tf", replay_teacher_forcing),
                           register_kind("hy.base.forward", replay_base),
                           register_kind("hy.block.bi", replay_block)};

}  // namespace
}  // namespace minwm::golden
