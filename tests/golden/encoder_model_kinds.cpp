// The networks that encode text, glyphs and images (spec encoders 1, 3, 4, 5, 6).

#include "minwm/models/hy/embedders.h"
#include "minwm/models/text/byt5_encoder.h"
#include "minwm/models/text/hf_names.h"
#include "minwm/models/text/qwen_encoder.h"
#include "minwm/models/vision/clip_visual.h"
#include "minwm/models/vision/siglip.h"
#include "wan_model.h"

namespace minwm::golden {
namespace {

/// The case's parameters as the file that a checkpoint would be.
models::ParameterSource source_of(const Case& c) {
  models::ParameterSource source;
  source.where = c.path;
  const auto tensors = parameters(c);
  for (const auto& [name, tensor] : tensors) {
    source.shapes[name] = tensor.sizes().vec();
  }
  source.read = [tensors](const std::string& name, int64_t begin, int64_t count) {
    return tensors.at(name).flatten().narrow(0, begin, count);
  };
  return source;
}

at::ScalarType compute_type(const Case& c) {
  const auto name = c.config.value("dtype", std::string("float32"));
  return name == "bfloat16" ? at::kBFloat16 : name == "float16" ? at::kHalf : at::kFloat;
}

/// The rows that a mask [B, L] counts, [rows, E].
at::Tensor counted(const at::Tensor& states, const at::Tensor& mask) {
  return states.index({mask.to(at::kBool)});
}

models::T5Config wan_t5_config(const Case& c) {
  models::T5Config config = {.name = "T5",
                             .vocab_size = integer(c, "vocab_size"),
                             .dim = integer(c, "dim"),
                             .dim_attn = integer(c, "dim_attn"),
                             .dim_ffn = integer(c, "dim_ffn"),
                             .num_heads = integer(c, "num_heads"),
                             .num_layers = integer(c, "encoder_layers")};
  config.num_buckets = integer(c, "num_buckets");
  config.shared_bias = c.config.at("shared_pos").get<bool>();
  return config;
}

models::T5Config hf_t5_config(const Case& c) {
  models::T5Config config = {.name = "T5",
                             .vocab_size = integer(c, "vocab_size"),
                             .dim = integer(c, "d_model"),
                             .dim_attn = integer(c, "d_kv") * integer(c, "num_heads"),
                             .dim_ffn = integer(c, "d_ff"),
                             .num_heads = integer(c, "num_heads"),
                             .num_layers = integer(c, "num_layers")};
  config.num_buckets = c.config.value("relative_attention_num_buckets", config.num_buckets);
  config.max_distance = c.config.value("relative_attention_max_distance", config.max_distance);
  config.eps = c.config.value("layer_norm_epsilon", config.eps);
  return config;
}

void replay_wan_t5(const Case& c, Report& report) {
  models::T5Encoder encoder(wan_t5_config(c), compute_type(c));
  models::load_encoder(encoder, source_of(c));
  const at::Tensor ids = c.in("ids"), mask = c.in("mask");
  report.compare("context", encoder.forward(ids, mask), c.out("context"));
  report.compare("prompt_embeds", encoder.encode(ids, mask), c.out("prompt_embeds"));
  if (c.has("out/pos_bias_block0")) {
    report.compare("pos_bias_block0", encoder.relative_bias(0, ids.size(1)).unsqueeze(0),
                   c.out("pos_bias_block0"));
  }
  if (c.has("out/block0")) {
    report.compare("block0", encoder.after_blocks(ids, mask, 1), c.out("block0"));
  }
}

void replay_umt5_hf(const Case& c, Report& report) {
  const auto source = source_of(c);
  report.check("names are seen as Hugging Face's", models::has_t5_hf_names(source));
  models::T5Encoder encoder(hf_t5_config(c), compute_type(c));
  models::load_encoder(encoder, models::from_t5_hf(source));
  const at::Tensor ids = c.in("ids"), mask = c.in("mask"), expected = c.out("last_hidden_state");
  report.compare("last_hidden_state", encoder.forward(ids, mask), expected);
  report.compare("true lengths", counted(encoder.encode(ids, mask), mask), counted(expected, mask));
}

void replay_buckets(const Case& c, Report& report) {
  const auto& tables = c.config.at("tables");
  for (size_t i = 0; i < tables.size(); ++i) {
    const auto& table = tables[i];
    const std::string number = std::to_string(i);
    report.equal("bucket_" + number,
                 models::t5_buckets(c.in("rel_" + number), table.at("num_buckets").get<int64_t>(),
                                    table.at("max_dist").get<int64_t>(),
                                    table.at("bidirectional").get<bool>()),
                 c.out("bucket_" + number));
  }
}

models::QwenConfig qwen_config(const Case& c) {
  models::QwenConfig config;
  config.vocab_size = integer(c, "vocab_size");
  config.hidden_size = integer(c, "hidden_size");
  config.intermediate_size = integer(c, "intermediate_size");
  config.num_hidden_layers = integer(c, "num_hidden_layers");
  config.num_attention_heads = integer(c, "num_attention_heads");
  config.num_key_value_heads = integer(c, "num_key_value_heads");
  config.rms_norm_eps = c.config.at("rms_norm_eps").get<double>();
  config.rope_theta = c.config.at("rope_theta").get<double>();
  config.apply_final_norm = c.config.value("apply_final_norm", false);
  const auto& skip = c.config.at("hidden_state_skip_layer");
  config.hidden_state_skip_layer =
      skip.is_null() ? std::nullopt : std::optional(skip.get<int64_t>());
  return config;
}

/// Rows that the mask does not count hold what a padded run leaves there; ours has no such rows.
void replay_llm(const Case& c, Report& report) {
  const auto source = source_of(c);
  const auto config = qwen_config(c);
  const at::Tensor ids = c.in("ids"), mask = c.in("mask");
  models::QwenEncoder encoder(config, compute_type(c));
  models::load_encoder(encoder, models::qwen_source(source, config));
  const auto states = encoder.encode(ids, mask, integer(c, "crop_start"));
  report.equal("prompt_mask", states.mask, c.out("prompt_mask"));
  report.compare("prompt_embeds", counted(states.embeds, states.mask),
                 counted(c.out("prompt_embeds"), states.mask));

  auto whole_config = config;
  whole_config.hidden_state_skip_layer = 0;
  models::QwenEncoder whole(whole_config, compute_type(c));
  models::load_encoder(whole, source);
  const at::Tensor last = whole.forward(ids);
  report.compare("last_hidden_state", counted(last, mask),
                 counted(c.out("last_hidden_state"), mask));
  for (int64_t k = 0; k <= config.num_hidden_layers; ++k) {
    const std::string name = "hidden_" + std::to_string(k);
    if (c.has("out/" + name)) {
      const at::Tensor state = k == config.num_hidden_layers ? last : whole.after_layers(ids, k);
      report.compare(name, counted(state, mask), counted(c.out(name), mask));
    }
  }
}

void replay_glyphs(const Case& c, Report& report) {
  auto config = hf_t5_config(c);
  config.shared_bias = true;
  config.names = models::T5Names::kHuggingFace;
  models::T5Encoder encoder(config, compute_type(c));
  models::load_encoder(encoder, models::byt5_source(source_of(c)));
  const at::Tensor ids = c.in("ids"), mask = ids.ne(0).to(at::kLong);
  const auto glyphs = models::encode_glyphs(encoder, ids, mask);
  report.equal("byt5_text_mask", glyphs.mask, c.out("byt5_text_mask"));
  const at::Tensor expected = c.out("byt5_text_states");
  report.compare("true lengths", counted(glyphs.states, mask), counted(expected, mask));
  // Upstream pads: rows behind a text hold something, but for prompts without any.
  const at::Tensor with_text = mask.any(1).nonzero().squeeze(1);
  at::Tensor padded = at::zeros_like(expected);
  if (with_text.numel() > 0) {
    padded.index_copy_(
        0, with_text,
        encoder.forward(ids.index_select(0, with_text), mask.index_select(0, with_text)));
  }
  report.compare("byt5_text_states", padded, expected);
}

void replay_mapper(const Case& c, Report& report) {
  models::HyConfig config;
  config.hidden_size = integer(c, "out_dim1");
  config.byt5_dims = {integer(c, "in_dim"), integer(c, "hidden_dim"), integer(c, "out_dim")};
  models::HyByt5Mapper mapper(config);
  models::load_state(*mapper, parameters(c), c.path);
  const at::Tensor x = c.in("x").clone().requires_grad_();
  at::Tensor y = mapper->forward(x, at::kFloat);
  if (c.config.at("use_residual").get<bool>()) {
    y = y + x;  // no published model has it: the module stays without
  }
  report.compare("y", y, c.out("y"));
  (y * c.in("grad_out")).sum().backward();
  compare_gradients(c, report, *mapper, {{"x", x.grad()}});
}

void replay_siglip(const Case& c, Report& report) {
  models::SiglipConfig config;
  config.hidden_size = integer(c, "hidden_size");
  config.intermediate_size = integer(c, "intermediate_size");
  config.num_hidden_layers = integer(c, "num_hidden_layers");
  config.num_attention_heads = integer(c, "num_attention_heads");
  config.image_size = integer(c, "image_size");
  config.patch_size = integer(c, "patch_size");
  config.layer_norm_eps = c.config.at("layer_norm_eps").get<double>();
  config.head = c.has("out/pooler_output");
  models::SiglipVision vision(config, compute_type(c));
  models::load_encoder(vision, models::siglip_source(source_of(c), config));
  const at::Tensor pixels = c.in("pixel_values");
  report.compare("embeddings", vision.embed(pixels), c.out("embeddings"));
  const at::Tensor states = vision.forward(pixels);
  report.compare("last_hidden_state", states, c.out("last_hidden_state"));
  if (config.head) {
    report.compare("pooler_output", vision.pool(states), c.out("pooler_output"));
  }
}

void replay_clip(const Case& c, Report& report) {
  models::ClipVisualConfig config;
  config.image_size = integer(c, "image_size");
  config.patch_size = integer(c, "patch_size");
  config.dim = integer(c, "dim");
  config.mlp_ratio = integer(c, "mlp_ratio");
  config.num_heads = integer(c, "num_heads");
  const int64_t blocks = integer(c, "num_layers");
  const auto tokens = [&](int64_t used) {
    config.blocks_used = used;
    models::ClipVisual visual(config, compute_type(c));
    models::load_encoder(visual, models::clip_visual_source(source_of(c), config));
    return visual.forward(c.in("x"));
  };
  report.compare("tokens_31", tokens(blocks - 1), c.out("tokens_31"));
  report.compare("tokens", tokens(blocks), c.out("tokens"));
}

const bool registered = register_kind("encoders.wan_t5.forward", replay_wan_t5) &&
                        register_kind("encoders.umt5_hf.forward", replay_umt5_hf) &&
                        register_kind("encoders.t5.bucket", replay_buckets) &&
                        register_kind("encoders.hy_llm.encode", replay_llm) &&
                        register_kind("encoders.byt5.forward", replay_glyphs) &&
                        register_kind("encoders.byt5.mapper", replay_mapper) &&
                        register_kind("encoders.siglip.forward", replay_siglip) &&
                        register_kind("encoders.clip_wan.visual", replay_clip);

}  // namespace
}  // namespace minwm::golden
