// Wan's parts: rotary tables, time embedding, norms, plans, the camera operator, one block.

#include "minwm/camera/prope.h"
#include "minwm/nn/attention.h"
#include "minwm/nn/embedding.h"
#include "minwm/nn/norm.h"
#include "wan_model.h"

namespace minwm::golden {
namespace {

void replay_rope_table(const Case& c, Report& report) {
  const at::Tensor positions = c.in("positions");
  for (const int64_t d : c.config.at("head_dims").get<std::vector<int64_t>>()) {
    std::vector<at::Tensor> parts;
    for (const int64_t pairs : nn::rotary_split(d)) {
      parts.push_back(nn::rotary_angles(positions, pairs));
    }
    const at::Tensor angles = at::cat(parts, 1);
    report.compare("cos." + std::to_string(d), angles.cos(), c.out("cos." + std::to_string(d)));
    report.compare("sin." + std::to_string(d), angles.sin(), c.out("sin." + std::to_string(d)));
  }
}

void replay_rope_apply(const Case& c, Report& report) {
  int64_t index = 0;
  for (const auto& item : c.config.at("cases")) {
    const std::string name = std::to_string(index++);
    const auto grid = item.at("grid").get<std::vector<int64_t>>();
    std::vector<int64_t> positions;
    for (int64_t f = 0; f < grid[0]; ++f) {
      positions.push_back(item.at("start_frame").get<int64_t>() + f);
    }
    const at::Tensor table =
        nn::rotary_table(positions, grid[1], grid[2], item.at("head_dim").get<int64_t>());
    const at::Tensor x = c.in("x." + name);
    const int64_t tokens = grid[0] * grid[1] * grid[2];
    const at::Tensor y =
        at::cat({nn::apply_rotary(x.narrow(1, 0, tokens), table), x.slice(1, tokens)}, 1);
    report.compare("y." + name, y, c.out("y." + name));
  }
}

void replay_time_embedding(const Case& c, Report& report) {
  const auto config = wan_config(c, false);
  const at::Tensor t = c.in("t");
  report.compare("sinusoid", nn::timestep_sinusoid_double(t, config.freq_dim), c.out("sinusoid"));
  report.compare("sinusoid256", nn::timestep_sinusoid_double(t, 256), c.out("sinusoid256"));
  models::WanBackbone model(config, 0);
  at::NoGradGuard no_grad;
  auto known = model.named_parameters();
  for (const auto& [name, value] : parameters(c)) {
    known[name].copy_(value);
  }
  const auto time = model.embed_time(t.unsqueeze(1));
  report.compare("e", time.e.squeeze(1), c.out("e"));
  report.compare("e0", time.e0.squeeze(1), c.out("e0"));
}

void replay_norm(const Case& c, Report& report) {
  const double eps = c.config.at("eps").get<double>();
  const at::Tensor x = c.in("x").requires_grad_(), weight = c.param("weight").requires_grad_();
  const at::Tensor y = nn::rms_norm(x, weight, eps);
  report.compare("rms", y, c.out("rms"));
  report.compare("layernorm", nn::layer_norm(x, eps), c.out("layernorm"));
  (y * c.in("grad_out")).sum().backward();
  report.compare("grad/x", x.grad(), c.grad("x"));
  report.compare("grad/weight", weight.grad(), c.grad("weight"));
  const at::Tensor rounded =
      nn::rms_norm(x.detach().to(at::kBFloat16), weight.detach().to(at::kBFloat16), eps);
  const at::Tensor reference = c.out("rms_bf16");
  report.compare("rms_bf16", rounded, reference, 0x1.0p-7, 0);
  report.check("rms_bf16 rounding order",
               (rounded == reference).to(at::kFloat).mean().item<double>() >= 0.95);
}

void replay_mask(const Case& c, Report& report) {
  int64_t index = 0;
  for (const auto& item : c.config.at("cases")) {
    const auto frames = item.at("frames").get<int64_t>(),
               block = item.at("num_frame_per_block").get<int64_t>();
    const auto rule = item.at("rule").get<std::string>();
    const auto plan =
        rule == "teacher_forcing"
            ? nn::teacher_forcing_plan(frames, block)
            : nn::block_causal_plan(frames, block, item.at("local_attn_size").get<int64_t>(),
                                    rule == "blockwise_first_frame");
    const std::string name = "mask." + std::to_string(index++);
    report.equal(name, nn::dense_mask(plan, item.at("frame_seqlen").get<int64_t>()).to(at::kByte),
                 c.out(name));
  }
}

void replay_prope(const Case& c, Report& report) {
  camera::Cameras cameras{c.in("viewmats"),
                          c.config.at("use_intrinsics").get<bool>() ? c.in("Ks") : at::Tensor()};
  const auto m = camera::projective_matrices(cameras);
  report.compare("P", m.p, c.out("P"));
  report.compare("P_inv", m.p_inverse, c.out("P_inv"));
  auto heads_inside = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous(); };
  const at::Tensor q = c.in("q").requires_grad_(), k = c.in("k").requires_grad_(),
                   v = c.in("v").requires_grad_();
  const at::Tensor inverse = m.p_inverse.transpose(2, 3), back = m.p.transpose(2, 3);
  const at::Tensor tq = nn::apply_frame_matrices(heads_inside(q), m.p);
  const at::Tensor tk = nn::apply_frame_matrices(heads_inside(k), inverse);
  const at::Tensor tv = nn::apply_frame_matrices(heads_inside(v), inverse);
  report.compare("q", heads_inside(tq), c.out("q"));
  report.compare("k", heads_inside(tk), c.out("k"));
  report.compare("v", heads_inside(tv), c.out("v"));
  report.compare("o", heads_inside(nn::apply_frame_matrices(heads_inside(c.in("o")), back)),
                 c.out("o"));
  const at::Tensor attention =
      heads_inside(nn::apply_frame_matrices(nn::attend(tq, tk, tv).contiguous(), back));
  report.compare("attention", attention, c.out("attention"));
  (attention * c.in("grad_out")).sum().backward();
  report.compare("grad/q", q.grad(), c.grad("q"));
  report.compare("grad/k", k.grad(), c.grad("k"));
  report.compare("grad/v", v.grad(), c.grad("v"));
}

void replay_block(const Case& c, Report& report) {
  const auto grid = c.config.at("grid").get<std::vector<int64_t>>();
  models::WanBlock block(wan_config(c, c.config.at("camera").get<bool>()));
  models::load_state(*block, parameters(c), c.path);
  models::Geometry where;
  std::vector<int64_t> positions;
  for (int64_t f = 0; f < grid[0]; ++f) {
    positions.push_back(f);
  }
  const auto config = wan_config(c, false);
  where.rotary = nn::rotary_table(positions, grid[1], grid[2], config.dim / config.num_heads);
  if (c.has("in/viewmats")) {
    const auto m = camera::projective_matrices({c.in("viewmats"), c.in("Ks")});
    where.p = m.p;
    where.p_inverse = m.p_inverse;
  }
  const auto plan = nn::bidirectional_plan(grid[0]);
  const int64_t tokens = grid[1] * grid[2];
  const at::Tensor x = c.in("x").requires_grad_(), e0 = c.in("e0").requires_grad_(),
                   text = c.in("context").requires_grad_();
  const auto attend = [&](const models::Projections& p) {
    return nn::attend(models::transform_queries(p.q, where), models::transform_keys(p.k, where),
                      models::transform_values(p.v, where), plan, tokens);
  };
  const at::Tensor frames = x.view({x.size(0), grid[0], tokens, x.size(2)});
  const at::Tensor rows = e0.unsqueeze(1).expand({-1, grid[0], -1, -1});
  const auto context = block->cross_attention()->project_context(text, 0, at::kFloat);
  const at::Tensor y =
      block->forward(frames, rows, where, context, attend, at::kFloat).view(x.sizes());
  report.compare("y", y, c.out("y"));
  const auto modulation = block->modulation(rows);
  const at::Tensor attended =
      block->self_attention_output(frames, modulation, where, attend, at::kFloat);
  report.compare("self_attn", attended.view(x.sizes()), c.out("self_attn"));
  const at::Tensor after = frames + attended * modulation[2].unsqueeze(2);
  const at::Tensor crossed = block->cross_attention_output(after, context, at::kFloat);
  report.compare("cross_attn", crossed.view(x.sizes()), c.out("cross_attn"));
  report.compare(
      "ffn", block->feed_forward_output(after + crossed, modulation, at::kFloat).view(x.sizes()),
      c.out("ffn"));
  (y * c.in("grad_out")).sum().backward();
  compare_gradients(c, report, *block,
                    {{"x", x.grad()}, {"e0", e0.grad()}, {"context", text.grad()}});
}

const bool registered[] = {register_kind("wan.rope.table", replay_rope_table),
                           register_kind("wan.rope.apply", replay_rope_apply),
                           register_kind("wan.time_embedding", replay_time_embedding),
                           register_kind("wan.norm", replay_norm),
                           register_kind("wan.mask", replay_mask),
                           register_kind("wan.prope.op", replay_prope),
                           register_kind("wan.block.forward", replay_block)};

}  // namespace
}  // namespace minwm::golden
