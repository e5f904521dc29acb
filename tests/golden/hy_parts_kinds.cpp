// The small modules of the HY transformer (spec hy-mmdit 4, 5, 6).

#include "hy_model.h"
#include "minwm/models/hy/embedders.h"
#include "minwm/nn/embedding.h"

namespace minwm::golden {
namespace {

/// A module on its own: an input, its output, and gradients of Σ output · in/grad_y.
template <class Module, class Forward>
void replay_module(const Case& c, Report& report, Module module, Forward forward) {
  models::load_state(*module, parameters(c), c.path);
  at::Tensor x = c.in("x").clone().requires_grad_();
  at::Tensor y = forward(module, x);
  if (c.has("in/mask")) {
    y = y * c.in("mask").unsqueeze(2);  // rows that do not count are zeroed in the file
  }
  report.compare("y", y, c.out("y"));
  (y * c.in("grad_y")).sum().backward();
  compare_gradients(c, report, *module, {{"in/x", x.grad()}});
}

void replay_refiner(const Case& c, Report& report) {
  models::HyConfig config;
  config.hidden_size = integer(c, "hidden_size");
  config.heads_num = integer(c, "heads_num");
  config.text_states_dim = integer(c, "text_states_dim");
  replay_module(c, report, models::HyTokenRefiner(config), [&](auto& module, const auto& x) {
    return module->forward(x, c.in("t"), c.in("mask"), at::kFloat);
  });
}

void replay_byt5(const Case& c, Report& report) {
  models::HyConfig config;
  config.hidden_size = integer(c, "out_dim");
  config.byt5_dims = {integer(c, "in_dim"), integer(c, "hidden_dim"), integer(c, "mid_dim")};
  replay_module(c, report, models::HyByt5Mapper(config),
                [](auto& module, const auto& x) { return module->forward(x, at::kFloat); });
}

void replay_vision(const Case& c, Report& report) {
  models::HyConfig config;
  config.hidden_size = integer(c, "out_dim");
  config.vision_states_dim = integer(c, "in_dim");
  replay_module(c, report, models::HyVisionMapper(config),
                [](auto& module, const auto& x) { return module->forward(x, at::kFloat); });
}

void replay_time(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  models::HyTimeEmbedder module(integer(c, "hidden_size"));
  models::load_state(*module, parameters(c), c.path);
  const at::Tensor t = c.in("t"), rounded = t.to(at::kBFloat16);
  report.compare("sinusoid", models::hy_sinusoid(t), c.out("sinusoid"));
  report.compare("emb", module->forward(t), c.out("emb"));
  report.compare("t_bf16", rounded.to(at::kFloat), c.out("t_bf16").to(at::kFloat));
  report.compare("sinusoid_bf16t", models::hy_sinusoid(rounded), c.out("sinusoid_bf16t"));
}

void replay_rope(const Case& c, Report& report) {
  const auto sizes = c.config.at("sizes").get<std::vector<int64_t>>();
  nn::RotaryAxes axes;
  for (const auto dims : c.config.at("rope_dim_list").get<std::vector<int64_t>>()) {
    axes.pairs.push_back(dims / 2);
  }
  axes.base = c.config.at("theta").get<double>();
  const at::Tensor table =
      nn::rotary_table(models::positions_from(0, sizes[0]), sizes[1], sizes[2], axes);
  report.compare("cos", at::real(table).repeat_interleave(2, 1), c.out("cos"));
  report.compare("sin", at::imag(table).repeat_interleave(2, 1), c.out("sin"));
  report.compare("q", nn::apply_rotary(c.in("q"), table), c.out("q"));
  report.compare("k", nn::apply_rotary(c.in("k"), table), c.out("k"));
}

/// Patch embedding and final layer under their published prefixes.
struct Ends : torch::nn::Module {
  explicit Ends(const models::HyConfig& config)
      : img_in(register_module("img_in", models::HyPatchEmbedder(config))),
        final_layer(register_module("final_layer", models::HyFinalLayer(config))) {}
  models::HyPatchEmbedder img_in;
  models::HyFinalLayer final_layer;
};

void replay_ends(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  models::HyConfig config;
  config.hidden_size = integer(c, "hidden_size");
  config.in_channels = integer(c, "in_channels");
  config.out_channels = integer(c, "out_channels");
  c.config.at("patch_size").get_to(config.patch_size);
  Ends ends(config);
  models::load_state(ends, parameters(c), c.path);
  const at::Tensor x = swap_layout(c.in("hidden_states"));
  const int64_t ph = config.patch_size[1], pw = config.patch_size[2];
  const at::Tensor tokens = ends.img_in->forward(models::hy_patches(x, ph, pw));
  report.compare("tokens", tokens.flatten(1, 2), c.out("tokens"));
  // The case has a vector for every token: each token is a frame of its own.
  const at::Tensor each = tokens.flatten(1, 2).unsqueeze(2);
  const at::Tensor vec = c.in("vec").view({x.size(0), -1, config.hidden_size});
  const at::Tensor out = ends.final_layer->forward(each, vec, at::kFloat).squeeze(2);
  report.compare("final", out, c.out("final"));
  const at::Tensor video = models::hy_unpatch(out.unflatten(1, {x.size(1), -1}).contiguous(),
                                              x.size(3) / ph, x.size(4) / pw, ph, pw);
  report.compare("video", swap_layout(video), c.out("video"));
}

void replay_channels(const Case& c, Report& report) {
  const at::Tensor first = swap_layout(c.in("image_cond"));
  const at::Tensor given = swap_layout(models::hy_image_channels(first, c.in("latents").size(2)));
  report.compare("cond_i2v", given, c.out("cond_i2v"));
  report.compare("cond_t2v", at::zeros_like(given), c.out("cond_t2v"));
}

/// The modules that make the text stream, under their published prefixes.
struct TextParts : torch::nn::Module {
  explicit TextParts(const models::HyConfig& config)
      : time_in(register_module("time_in", models::HyTimeEmbedder(config.hidden_size))) {
    text.text = register_module("txt_in", models::HyTokenRefiner(config));
    text.byt5 = register_module("byt5_in", models::HyByt5Mapper(config));
    text.vision = register_module("vision_in", models::HyVisionMapper(config));
    text.type_table = register_module("cond_type_embedding", std::make_shared<torch::nn::Module>())
                          ->register_parameter("weight", at::zeros({3, config.hidden_size}));
  }
  models::HyTimeEmbedder time_in;
  models::HyTextModules text;
};

void replay_text(const Case& c, Report& report) {
  at::NoGradGuard no_grad;
  const auto config = hy_config(c);
  TextParts parts(config);
  models::load_state(parts, parameters(c), c.path);
  models::Conditions conditions;
  conditions.text = c.in("text_states");
  conditions.text_mask = c.in("text_mask");
  conditions.byt5 = c.in("byt5_states");
  conditions.byt5_mask = c.in("byt5_mask");
  conditions.vision = c.in("vision_states");
  conditions.text_to_video = c.config.value("mask_type", "i2v") == "t2v";
  const at::Tensor t = c.in("timestep_txt");
  const auto stream = parts.text.assemble(conditions, t, config, at::kFloat);
  const at::Tensor mask = c.out("mask").to(at::kLong), rows = c.out("txt");
  report.equal("mask", at::tensor(stream.lengths, at::kLong), mask.sum(1));
  for (int64_t i = 0; i < mask.size(0); ++i) {
    const int64_t length = stream.lengths[static_cast<size_t>(i)];
    report.check("valid rows first", mask[i].narrow(0, 0, length).all().item<bool>());
    report.compare("txt", stream.rows[i].narrow(0, 0, length), rows[i].narrow(0, 0, length));
  }
  report.compare("vec_txt", parts.time_in->forward(t), c.out("vec_txt"));
}

const bool registered = register_kind("hy.txt_in.forward", replay_refiner) &&
                        register_kind("hy.byt5_in.forward", replay_byt5) &&
                        register_kind("hy.vision_in.forward", replay_vision) &&
                        register_kind("hy.time_in.forward", replay_time) &&
                        register_kind("hy.rope.tables", replay_rope) &&
                        register_kind("hy.patch_final", replay_ends) &&
                        register_kind("hy.cond.concat", replay_channels) &&
                        register_kind("hy.text.assemble", replay_text);

}  // namespace
}  // namespace minwm::golden
