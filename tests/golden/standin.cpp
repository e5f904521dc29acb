#include "standin.h"

#include "minwm/core/error.h"

namespace minwm::golden {
namespace {

/// Feature means of the committed frames, detached.
class FeatureCache : public models::KvCache {
 public:
  void reset() override {
    frames.reset();
    text.reset();
    seen = 0;
  }
  int64_t frames_seen() const override { return seen; }

  at::Tensor frames;  // [B, seen, K]
  at::Tensor text;    // HY: [B, D] of the first call
  int64_t seen = 0;
};

at::Tensor channels_last(const at::Tensor& x) {
  return x.permute({0, 1, 3, 4, 2});
}

/// Mean over pixels of [B, T, h, w, K].
at::Tensor per_frame_mean(const at::Tensor& features) {
  return features.mean({2, 3});
}

at::Tensor with_image(const at::Tensor& latents, const models::Conditions& conditions) {
  const at::Tensor x = latents.to(at::kFloat);
  return conditions.image_latents.defined()
             ? at::cat({x, conditions.image_latents.to(at::kFloat)}, 2)
             : x;
}

at::Tensor masked_mean(const at::Tensor& states, const at::Tensor& mask) {
  const at::Tensor m = mask.to(at::kFloat).unsqueeze(2);
  return (states.to(at::kFloat) * m).sum(1) / m.sum(1).clamp_min(1);
}

/// Means of the frame means before each frame's block; zeros for the first block.
at::Tensor past_blocks_mean(const at::Tensor& frames, int64_t block) {
  std::vector<at::Tensor> rows;
  for (int64_t f = 0; f < frames.size(1); ++f) {
    const int64_t before = f / block * block;
    rows.push_back(before == 0 ? at::zeros_like(frames.select(1, 0))
                               : frames.narrow(1, 0, before).mean(1));
  }
  return at::stack(rows, 1);
}

}  // namespace

StandIn::StandIn(const nlohmann::ordered_json& net, bool wrapped) {
  const std::string form = net.at("form").get<std::string>();
  form_ = form.ends_with("/hy")        ? Form::kHy
          : form.ends_with("/rolling") ? Form::kRolling
                                       : Form::kWan;
  const int64_t channels = net.at("C").get<int64_t>(), in = net.value("Cin", channels);
  const int64_t keys = net.at("K").get<int64_t>(), hidden = net.at("Hd").get<int64_t>();
  out_channels_ = net.value("Cout", channels);
  text_dim_ = net.at("D").get<int64_t>();
  auto inner = wrapped ? std::make_shared<torch::nn::Module>("model") : nullptr;
  auto add = [&](const char* name, at::IntArrayRef shape) {
    return (inner ? *inner : *this).register_parameter(name, at::zeros(shape));
  };
  wk_ = add("wk", {keys, in});
  bk_ = add("bk", {keys});
  wkt_ = add("wkt", {keys});
  // 26 = flattened view matrix (16), intrinsics (9), t / 1000.
  w1_ = add("w1", {hidden, in + keys + text_dim_ + 26});
  b1_ = add("b1", {hidden});
  w2_ = add("w2", {out_channels_, hidden});
  b2_ = add("b2", {out_channels_});
  if (inner) {
    register_module("model", inner);
  }
}

at::Tensor StandIn::text_of(const models::Conditions& c) const {
  if (form_ != Form::kHy) {
    return c.text.to(at::kFloat).mean(1);
  }
  return masked_mean(c.text, c.text_mask) + masked_mean(c.byt5, c.byt5_mask) +
         c.vision.to(at::kFloat).mean(1);
}

at::Tensor StandIn::features(const at::Tensor& hidden, const at::Tensor& t) const {
  const at::Tensor time = (t.to(at::kFloat) / 1000).unsqueeze(2) * wkt_;  // [B, T, K]
  return at::tanh(at::linear(channels_last(hidden), wk_, bk_) + time.unsqueeze(2).unsqueeze(2));
}

at::Tensor StandIn::flow(const at::Tensor& hidden, const at::Tensor& t, const at::Tensor& context,
                         const at::Tensor& text, const camera::Cameras& cameras) const {
  const at::Tensor x = channels_last(hidden);
  const int64_t batch = x.size(0), frames = x.size(1);
  const at::Tensor camera =
      cameras.defined() && form_ != Form::kRolling
          ? at::cat({cameras.world_to_camera.flatten(2), cameras.intrinsics.flatten(2)}, 2)
                .to(at::kFloat)
          : at::zeros({batch, frames, 25});
  const at::Tensor rest = at::cat({context, text.unsqueeze(1).expand({batch, frames, text_dim_}),
                                   camera, (t.to(at::kFloat) / 1000).unsqueeze(2)},
                                  2);
  const auto spread =
      rest.unsqueeze(2).unsqueeze(2).expand({batch, frames, x.size(2), x.size(3), rest.size(2)});
  const at::Tensor y =
      at::linear(at::tanh(at::linear(at::cat({x, spread}, 4), w1_, b1_)), w2_, b2_);
  return y.permute({0, 1, 4, 2, 3}).contiguous();
}

at::Tensor StandIn::as_returned(const at::Tensor& flow, const at::Tensor& latents) const {
  return form_ == Form::kHy ? flow : flow.to(latents.scalar_type());
}

at::Tensor StandIn::forward(const models::ForwardInput& input) {
  const at::Tensor hidden = with_image(input.latents, input.conditions);
  at::Tensor context;
  if (input.clean_latents.defined()) {
    const at::Tensor clean_t =
        input.clean_timestep.defined() ? input.clean_timestep : at::zeros_like(input.timestep);
    const at::Tensor clean = features(with_image(input.clean_latents, input.conditions), clean_t);
    context = past_blocks_mean(per_frame_mean(clean), input.chunk_frames);
  } else {
    const at::Tensor own = per_frame_mean(features(hidden, input.timestep));
    context = own.mean(1, true).expand_as(own);
  }
  const at::Tensor out =
      flow(hidden, input.timestep, context, text_of(input.conditions), input.conditions.cameras);
  if (record) {
    forwards.push_back({input.latents.detach(), input.timestep, out.detach(), hidden.detach(), 0,
                        at::GradMode::is_enabled(), false});
  }
  return as_returned(out, input.latents);
}

at::Tensor StandIn::stream(const models::StreamInput& input, models::KvCache& cache) {
  auto& past = dynamic_cast<FeatureCache&>(cache);
  at::AutoGradMode grad_mode(at::GradMode::is_enabled() && !input.commit);
  const at::Tensor hidden = with_image(input.latents, input.conditions);
  const int64_t start = past.seen, count = hidden.size(1);
  const at::Tensor own = per_frame_mean(features(hidden, input.timestep));
  at::Tensor read = past.frames;
  if (form_ == Form::kRolling) {
    read = read.defined() ? at::cat({read, own}, 1) : own;
  }
  const at::Tensor mean = read.defined() ? read.mean(1, true) : at::zeros_like(own.narrow(1, 0, 1));
  at::Tensor text = past.text;
  if (!text.defined()) {
    text = text_of(input.conditions);
    past.text = form_ == Form::kHy ? text : at::Tensor();
  }
  const at::Tensor out =
      flow(hidden, input.timestep, mean.expand({-1, count, -1}), text, input.conditions.cameras);
  if (record) {
    calls.push_back({input.latents.detach(), input.timestep, out.detach(), hidden.detach(), start,
                     at::GradMode::is_enabled(), input.commit});
  }
  if (!input.commit) {
    return as_returned(out, input.latents);
  }
  const at::Tensor written = own.detach();
  past.frames = past.frames.defined() ? at::cat({past.frames, written}, 1) : written;
  past.seen += count;
  return {};
}

std::unique_ptr<models::KvCache> StandIn::make_cache(const models::CacheOptions& /*options*/,
                                                     int64_t /*height*/, int64_t /*width*/) {
  return std::make_unique<FeatureCache>();
}

std::shared_ptr<StandIn> standin(const Case& c, const std::string& prefix) {
  const auto tensors = parameters(c, prefix);
  const bool wrapped = !tensors.empty() && tensors.begin()->first.starts_with("model.");
  auto model = std::make_shared<StandIn>(c.config.at("net"), wrapped);
  models::load_state(*model, tensors, c.path);
  return model;
}

models::Conditions standin_conditions(const Case& c, const std::string& prefix) {
  models::Conditions conditions;
  conditions.text = c.in(prefix + "prompt_embeds").to(at::kFloat);
  if (c.has("in/" + prefix + "viewmats")) {
    conditions.cameras = {c.in(prefix + "viewmats").to(at::kFloat),
                          c.in(prefix + "Ks").to(at::kFloat)};
  }
  return conditions;
}

models::Conditions standin_negative(const Case& c, const std::string& prefix) {
  models::Conditions conditions;
  conditions.text = c.in(prefix + "negative_prompt_embeds").to(at::kFloat);
  return conditions;
}

models::Conditions hy_conditions(const Case& c, int64_t frames) {
  models::Conditions conditions;
  conditions.text = c.in("prompt_embed").to(at::kFloat);
  conditions.text_mask = c.in("prompt_mask").to(at::kFloat);
  conditions.byt5 = c.in("byt5_text_states").to(at::kFloat);
  conditions.byt5_mask = c.in("byt5_text_mask").to(at::kFloat);
  conditions.vision = c.in("vision_states").to(at::kFloat);
  if (c.has("in/viewmats")) {
    conditions.cameras = {c.in("viewmats").to(at::kFloat), c.in("Ks").to(at::kFloat)};
  }
  const auto& net = c.config.at("net");
  const int64_t channels = net.at("Cin").get<int64_t>() - net.at("Cout").get<int64_t>();
  conditions.image_latents =
      at::zeros({conditions.text.size(0), frames, channels, integer(c, "H"), integer(c, "W")});
  if (c.config.value("task_type", "i2v") == "i2v") {
    const at::Tensor image = swap_layout(c.in("image_cond").to(at::kFloat));  // [B, 1, 32, h, w]
    at::Tensor first = conditions.image_latents.select(1, 0);
    first.narrow(1, 0, channels - 1).copy_(image.select(1, 0));
    first.select(1, channels - 1).fill_(1);
  }
  return conditions;
}

models::Conditions hy_negative(const Case& c) {
  models::Conditions conditions;
  conditions.text = c.in("negative_prompt_embeds").to(at::kFloat);
  conditions.text_mask = c.in("negative_prompt_mask").to(at::kFloat);
  conditions.byt5 = c.in("negative_byt5_text_states").to(at::kFloat);
  conditions.byt5_mask = c.in("negative_byt5_text_mask").to(at::kFloat);
  return conditions;
}

void compare_stage_gradients(const Case& c, Report& report, const torch::nn::Module& module,
                             const std::string& prefix) {
  const auto known = module.named_parameters();
  for (const auto& name : c.under("grad/" + prefix)) {
    const at::Tensor reference = c.grad(prefix + name);
    require(known.contains(name), "{}: grad/{}{}: the network has no such parameter", c.path,
            prefix, name);
    const at::Tensor ours = known[name].grad();
    report.compare("grad/" + prefix + name, ours.defined() ? ours : at::zeros_like(reference),
                   reference, c.rtol,
                   std::max(c.atol, 1e-3 * reference.abs().max().item<double>()));
  }
}

void compare_updated(const Case& c, Report& report, const std::string& prefix,
                     const std::map<std::string, at::Tensor>& ours,
                     const std::vector<std::string>& gradients, double lr, int64_t steps,
                     double atol) {
  for (const auto& name : c.under("out/" + prefix)) {
    const at::Tensor reference = c.out(prefix + name);
    const auto found = ours.find(name);
    require(found != ours.end(), "{}: out/{}{}: the network has no such parameter", c.path, prefix,
            name);
    at::Tensor value = found->second;
    const at::Tensor within =
        (value - reference).abs() <= 2 * lr * static_cast<double>(steps) + atol;
    for (const auto& place : gradients) {
      if (c.has("grad/" + place + name)) {
        const at::Tensor g = c.grad(place + name).abs();
        value = at::where((g <= 1e-4 * g.max()).logical_and(within), reference, value);
      }
    }
    report.compare(prefix + name, value, reference, c.rtol, atol);
  }
}

std::map<std::string, at::Tensor> named_tensors(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : module.named_parameters()) {
    tensors[item.key()] = item.value().detach();
  }
  return tensors;
}

}  // namespace minwm::golden
