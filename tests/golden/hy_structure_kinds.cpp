// What the HY network rests on, without its weights: names and shapes of the 8B, the camera's
// transforms, who sees whom in teacher forcing.

#include "hy_model.h"
#include "minwm/camera/prope.h"
#include "minwm/models/frame_attention.h"
#include "minwm/nn/attention.h"
#include "minwm/nn/frame_plan.h"
#include "minwm/nn/parameters.h"

namespace minwm::golden {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

/// Of every tensor the case names.
Shapes expected_shapes(const Case& c) {
  auto shapes = c.config.at("root").get<Shapes>();
  for (int64_t i = 0; i < integer(c, "num_blocks"); ++i) {
    for (const auto& [name, shape] : c.config.at("block").get<Shapes>()) {
      shapes["double_blocks." + std::to_string(i) + "." + name] = shape;
    }
  }
  return shapes;
}

void replay_state_dict(const Case& c, Report& report) {
  const nn::HollowParameters no_memory;
  auto config = hy_config(c);
  config.camera = config.action = true;
  const models::HyBackbone model(config, 0);
  auto expected = expected_shapes(c);
  int64_t base = 0, camera = 0, action = 0;
  for (const auto& item : model.named_parameters()) {
    const auto& name = item.key();
    const auto found = expected.find(name);
    report.check(name, found != expected.end() && item.value().sizes() == found->second,
                 "is " + c10::str(item.value().sizes()));
    expected.erase(name);
    (name.find("prope_proj") != std::string::npos ? camera
     : name.starts_with("action_in.")             ? action
                                                  : base) += item.value().numel();
  }
  for (const auto& [name, shape] : expected) {
    report.check(name, false, "is missing");
  }
  report.check("buffers", model.named_buffers().size() == 0, "there are some");
  report.equal("num_values", at::tensor({base, camera, action, base + camera + action}, at::kLong),
               c.out("num_values"));
}

/// The camera path of `heads` [B, N, 2A, D], as the cases store heads: [B, A, N, D].
at::Tensor camera_path(const at::Tensor& heads) {
  return heads.chunk(2, 2)[1].transpose(1, 2);
}

struct CameraCase {
  models::Geometry where;
  /// x [B, A, N, D] as the model holds it.
  at::Tensor q(const at::Tensor& x) const {
    return camera_path(models::transform_queries(x.transpose(1, 2), where));
  }
  at::Tensor k(const at::Tensor& x) const {
    return camera_path(models::transform_keys(x.transpose(1, 2), where));
  }
  at::Tensor v(const at::Tensor& x) const {
    return camera_path(models::transform_values(x.transpose(1, 2), where));
  }
  at::Tensor o(const at::Tensor& x) const {
    const at::Tensor heads = x.transpose(1, 2);
    const auto rows = models::path_rows(at::cat({heads, heads}, 2).contiguous(), where);
    return models::head_rows(rows[1], heads.size(2)).transpose(1, 2);
  }
};

CameraCase camera_case(const Case& c, bool intrinsics) {
  const auto m =
      camera::projective_matrices({c.in("viewmats"), intrinsics ? c.in("Ks") : at::Tensor()});
  const at::Tensor q = c.in("q");
  // The rotary path beside it turns by nothing.
  const at::Tensor still =
      at::ones({q.size(2), q.size(3) / 2}, at::TensorOptions(at::kComplexFloat));
  return {{still, m.p, m.p_inverse}};
}

void replay_prope(const Case& c, Report& report) {
  const CameraCase full = camera_case(c, true), views_only = camera_case(c, false);
  const at::Tensor q = c.in("q").requires_grad_(), k = c.in("k").requires_grad_(),
                   v = c.in("v").requires_grad_();
  const at::Tensor tq = full.q(q), tk = full.k(k), tv = full.v(v);
  report.compare("q", tq, c.out("q"));
  report.compare("k", tk, c.out("k"));
  report.compare("v", tv, c.out("v"));
  report.compare("o", full.o(c.in("o")), c.out("o"));
  const std::map<std::string, at::Tensor> without = {{"q_gta", views_only.q(q)},
                                                     {"k_gta", views_only.k(k)},
                                                     {"v_gta", views_only.v(v)},
                                                     {"o_gta", views_only.o(c.in("o"))}};
  for (const auto& [name, ours] : without) {
    if (c.has("out/" + name)) {
      report.compare(name, ours, c.out(name));
    }
  }
  const auto rows = [](const at::Tensor& x) { return x.transpose(1, 2); };
  const at::Tensor attention = full.o(rows(nn::attend(rows(tq), rows(tk), rows(tv))));
  report.compare("attn", attention, c.out("attn"));
  (attention * c.in("grad_attn")).sum().backward();
  report.compare("grad/in/q", q.grad(), c.grad("in/q"));
  report.compare("grad/in/k", k.grad(), c.grad("in/k"));
  report.compare("grad/in/v", v.grad(), c.grad("in/v"));
}

/// The plan's mask over frames with the text as frame 0, which sees itself and which all see.
at::Tensor mask_with_text(const nn::FramePlan& plan) {
  const at::Tensor images = nn::dense_mask(plan, 1);
  at::Tensor mask = at::constant_pad_nd(images, {1, 0, 1, 0});
  mask.select(1, 0).fill_(true);
  return mask;
}

void replay_mask(const Case& c, Report& report) {
  const int64_t frames = integer(c, "num_frames"), text = integer(c, "text_len"),
                tokens = integer(c, "frame_seqlen"), multiple = integer(c, "pad_multiple");
  const auto plan = nn::teacher_forcing_plan(frames, integer(c, "num_frame_per_block"));
  at::Tensor counts = at::full({2 * frames + 1}, tokens, at::kLong);
  counts[0] = text;
  const at::Tensor mask =
      mask_with_text(plan).repeat_interleave(counts, 0).repeat_interleave(counts, 1);
  const int64_t size = mask.size(0), padding = (multiple - size % multiple) % multiple;
  // The reference's padded rows see the text and themselves; nobody sees them.
  at::Tensor padded = at::constant_pad_nd(mask, {0, padding, 0, padding});
  padded.slice(0, size).slice(1, 0, text).fill_(true);
  padded.diagonal().fill_(true);
  report.equal("mask", padded.to(at::kByte), c.out("mask"));
}

const bool registered[] = {register_kind("hy.state_dict", replay_state_dict),
                           register_kind("hy.prope.qkv", replay_prope),
                           register_kind("hy.mask.tf", replay_mask)};

}  // namespace
}  // namespace minwm::golden
