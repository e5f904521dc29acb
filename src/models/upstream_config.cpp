#include "minwm/models/upstream_config.h"

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/models/hy/backbone.h"
#include "minwm/models/wan/backbone.h"

namespace minwm::models {
namespace {

using Json = nlohmann::ordered_json;

Json wan_json(const WanConfig& c) {
  Json json = {{"_class_name", "WanModel"},
               {"_diffusers_version", "0.30.0"},
               {"dim", c.dim},
               {"eps", c.eps},
               {"ffn_dim", c.ffn_dim},
               {"freq_dim", c.freq_dim},
               {"in_dim", c.in_dim},
               {"model_type", c.model_type},
               {"num_heads", c.num_heads},
               {"num_layers", c.num_layers},
               {"out_dim", c.out_dim},
               {"text_len", c.text_len}};
  // Not stored by upstream, whose models all have the defaults.
  const WanConfig usual;
  if (c.text_dim != usual.text_dim) {
    json["text_dim"] = c.text_dim;
  }
  if (c.patch_size != usual.patch_size) {
    json["patch_size"] = c.patch_size;
  }
  return json;
}

Json hy_json(const HyConfig& c) {
  return {{"_class_name", c.camera ? "HunyuanTransformer3DARActionProPEModel"
                                   : "HunyuanTransformer3DARActionModel"},
          {"_diffusers_version", "0.35.0"},
          {"attn_mode", "flash"},
          {"attn_param", nullptr},
          {"concat_condition", true},
          {"glyph_byT5_v2", true},
          {"guidance_embed", false},
          {"heads_num", c.heads_num},
          {"hidden_size", c.hidden_size},
          {"ideal_resolution", "480p"},
          {"ideal_task", "i2v"},
          {"in_channels", c.in_channels},
          {"is_reshape_temporal_channels", false},
          {"mlp_act_type", "gelu_tanh"},
          {"mlp_width_ratio", c.mlp_width_ratio},
          {"mm_double_blocks_depth", c.mm_double_blocks_depth},
          {"mm_single_blocks_depth", 0},
          {"out_channels", c.out_channels},
          {"patch_size", c.patch_size},
          {"qk_norm", true},
          {"qk_norm_type", "rms"},
          {"qkv_bias", true},
          {"rope_dim_list", c.rope_dim_list},
          {"rope_theta", c.rope_theta},
          {"text_pool_type", nullptr},
          {"text_projection", "single_refiner"},
          {"text_states_dim", c.text_states_dim},
          {"text_states_dim_2", nullptr},
          {"use_attention_mask", true},
          {"use_cond_type_embedding", true},
          {"use_meanflow", false},
          {"vision_projection", "linear"},
          {"vision_states_dim", c.vision_states_dim}};
}

Json config_of(const Backbone& model) {
  if (const auto* hy = dynamic_cast<const HyBackbone*>(&model)) {
    return hy_json(hy->config());
  }
  const auto* wan = dynamic_cast<const WanBackbone*>(&model);
  TORCH_INTERNAL_ASSERT(wan != nullptr, "a backbone of a third family");
  return wan_json(wan->config());
}

/// Keys that say nothing of the network: names, kernels, what it was trained for.
bool is_bookkeeping(const std::string& key) {
  return key.starts_with("_") || key.starts_with("ideal_") || key.starts_with("attn_");
}

}  // namespace

std::string upstream_config(const Backbone& model) {
  return config_of(model).dump(2) + "\n";
}

void require_config(const std::filesystem::path& file, const Backbone& model,
                    const std::string& preset) {
  Json given;
  try {
    given = Json::parse(read_file(file));
  } catch (const Json::exception& error) {
    fail("{}: is not valid JSON: {}", file.string(), error.what());
  }
  require(given.is_object(), "{}: expected an object", file.string());
  const Json expected = config_of(model);
  for (const auto& item : expected.items()) {
    const auto found = given.find(item.key());
    // 256 and 256.0 are one number.
    require(found == given.end() || is_bookkeeping(item.key()) || *found == item.value(),
            "{}: {} is {}, {} has {}", file.string(), item.key(), found->dump(), preset,
            item.value().dump());
  }
}

}  // namespace minwm::models
