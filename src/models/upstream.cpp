#include "minwm/models/upstream.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/models/hy/backbone.h"
#include "minwm/models/hy/diffusers_names.h"
#include "minwm/models/upstream_config.h"
#include "minwm/models/wan/backbone.h"
#include "minwm/models/wan/diffusers_names.h"
#include "minwm/models/weights_file.h"

namespace minwm::models {
namespace {

namespace fs = std::filesystem;

/// What tells a family by its names.
struct Family {
  std::string_view name, embedding, blocks, camera;
};
constexpr Family kWan{"wan", "patch_embedding.weight", "blocks.", "self_attn.prope_o."};
constexpr Family kHy{"hy", "img_in.proj.weight", "double_blocks.", "img_attn_prope_proj."};

const Family& family_of(const ParameterSource& source) {
  for (const Family* family : {&kWan, &kHy}) {
    if (source.shapes.contains(std::string(family->embedding))) {
      return *family;
    }
  }
  fail("{}: is no Wan or HY transformer (neither '{}' nor '{}' is in it)", source.where,
       kWan.embedding, kHy.embedding);
}

/// The highest number behind "PREFIX" plus one.
int64_t count_blocks(const ParameterSource& source, std::string_view prefix) {
  int64_t count = 0;
  for (const auto& [name, shape] : source.shapes) {
    int64_t number = -1;
    if (name.starts_with(prefix)) {
      std::from_chars(name.data() + prefix.size(), name.data() + name.size(), number);
    }
    count = std::max(count, number + 1);
  }
  return count;
}

/// How a file stands to a model.
struct Fit {
  std::string difference;         ///< the first one, "" if there is none
  std::vector<std::string> zero;  ///< camera projections that it lacks, all of them or none
};

Fit compare(const ParameterSource& source, const Backbone& model, const Family& family) {
  Fit fit;
  const auto known = model.named_parameters();
  const bool cameras =
      std::any_of(source.shapes.begin(), source.shapes.end(), [&](const auto& parameter) {
        return parameter.first.find(family.camera) != std::string::npos;
      });
  for (const auto& item : known) {
    const auto found = source.shapes.find(item.key());
    if (found != source.shapes.end()) {
      if (item.value().sizes() != at::IntArrayRef(found->second)) {
        fit.difference =
            fmt::format("parameter '{}' has shape {}, expected {}", item.key(),
                        c10::str(at::IntArrayRef(found->second)), c10::str(item.value().sizes()));
        return fit;
      }
    } else if (!cameras && item.key().find(family.camera) != std::string::npos) {
      fit.zero.push_back(item.key());
    } else {
      fit.difference = fmt::format("lacks the parameter '{}'", item.key());
      return fit;
    }
  }
  for (const auto& [name, shape] : source.shapes) {
    if (!known.contains(name)) {
      fit.difference = fmt::format("has a parameter '{}' that the model does not know", name);
      return fit;
    }
  }
  return fit;
}

/// The family's presets with the file's width, cut to its number of blocks.
std::vector<std::string> candidates(const ParameterSource& source, const Family& family) {
  const int64_t width = source.shapes.at(std::string(family.embedding)).at(0);
  const int64_t blocks = count_blocks(source, family.blocks);
  std::vector<std::string> names;
  const auto consider = [&](const std::string& name, int64_t own_width, int64_t own_blocks) {
    if (own_width == width && blocks > 0) {
      names.push_back(own_blocks == blocks ? name : fmt::format("{}@{}", name, blocks));
    }
  };
  if (&family == &kWan) {
    for (const auto& name : wan_presets()) {
      const WanConfig config = wan_preset(name);
      consider(name, config.dim, config.num_layers);
    }
  } else {
    for (const auto& name : hy_presets()) {
      const HyConfig config = hy_preset(name);
      consider(name, config.hidden_size, config.mm_double_blocks_depth);
    }
  }
  return names;
}

/// The preset that fits best: all there, or all but the camera projections.
std::string guess_preset(const ParameterSource& source, const Family& family) {
  const auto names = candidates(source, family);
  require(!names.empty(), "{}: a {} transformer of width {} with {} blocks: no preset is that wide",
          source.where, family.name, source.shapes.at(std::string(family.embedding)).at(0),
          count_blocks(source, family.blocks));
  std::string base, difference;
  for (const auto& name : names) {
    const Fit fit = compare(source, *make_hollow_backbone(name), family);
    if (fit.difference.empty() && fit.zero.empty()) {
      return name;
    }
    if (fit.difference.empty()) {
      base = name;
    } else if (difference.empty()) {
      difference = fmt::format("{} ({})", fit.difference, name);
    }
  }
  require(!base.empty(), "{}: fits no preset: {}", source.where, difference);
  return base;
}

/// The source with zeros of the first parameter's type for `zero`.
ParameterSource with_zeros(const ParameterSource& source, const Backbone& model,
                           const std::vector<std::string>& zero, at::ScalarType type) {
  ParameterSource out = source;
  const auto known = model.named_parameters();
  for (const auto& name : zero) {
    out.shapes[name] = known[name].sizes().vec();
  }
  out.read = [given = source.read, there = source.shapes, type](const std::string& name,
                                                                int64_t begin, int64_t count) {
    return there.contains(name) ? given(name, begin, count) : at::zeros({count}, type);
  };
  return out;
}

ParameterSource with_our_names(const ParameterSource& source, bool& diffusers) {
  diffusers = has_diffusers_names(source) || has_wan_diffusers_names(source);
  return has_diffusers_names(source)       ? from_diffusers(source)
         : has_wan_diffusers_names(source) ? from_wan_diffusers(source)
                                           : source;
}

/// The number behind "checkpoint-" and its like in a folder's name.
int64_t step_in(const fs::path& path) {
  for (const auto& part : path) {
    const std::string name = part.string();
    for (const std::string_view prefix : {"checkpoint-", "checkpoint_model_", "ema_checkpoint-"}) {
      int64_t step = -1;
      if (name.starts_with(prefix)) {
        const char* const end = name.data() + name.size();
        const auto parsed = std::from_chars(name.data() + prefix.size(), end, step);
        if (parsed.ec == std::errc() && parsed.ptr == end && step >= 0) {
          return step;
        }
      }
    }
  }
  return 0;
}

}  // namespace

std::string published_stage(const fs::path& path) {
  using Published = std::pair<std::string_view, const char*>;
  constexpr auto kStages = std::to_array<Published>({{"bidirectional", "bidirectional"},
                                                     {"bidirectional_model", "bidirectional"},
                                                     {"stage0_bi_sft", "bidirectional"},
                                                     {"480p_i2v", "bidirectional"},
                                                     {"480p_t2v", "bidirectional"},
                                                     {"Wan2.1-T2V-1.3B", "bidirectional"},
                                                     {"Wan2.1-T2V-14B", "bidirectional"},
                                                     {"ar_diffusion_tf", "teacher-forcing"},
                                                     {"ar_model", "teacher-forcing"},
                                                     {"stage1_ar_tf", "teacher-forcing"},
                                                     {"causal_ode", "ode"},
                                                     {"stage2_ar_ode", "ode"},
                                                     {"causal_cd", "consistency"},
                                                     {"stage2_ar_cd", "consistency"},
                                                     {"dmd", "dmd"},
                                                     {"stage3_ar_dmd", "dmd"}});
  std::string stage;
  for (const auto& part : fs::absolute(path).lexically_normal()) {
    for (const auto& [folder, name] : kStages) {
      stage = part.string() == folder ? name : stage;  // the innermost folder decides
    }
  }
  return stage;
}

StreamSwitches published_switches(const std::string& preset, const std::string& stage) {
  const auto model = make_hollow_backbone(preset);
  const bool hy = std::dynamic_pointer_cast<HyBackbone>(model) != nullptr;
  return {.rope_only_history = hy && model->reads_cameras() && stage == "dmd",
          .context_action = model->reads_actions()};
}

Upstream open_upstream(const fs::path& path, const std::string& state, const std::string& preset) {
  WeightsFile weights = open_weights(path, state);
  Upstream out;
  out.source = with_our_names(weights.source, out.diffusers);
  out.file = weights.file;
  out.layout = weights.layout;
  out.state = weights.state;
  out.metadata = weights.metadata;
  const Family& family = family_of(out.source);
  out.preset = preset.empty() ? guess_preset(out.source, family) : preset;
  const auto model = make_hollow_backbone(out.preset);
  const Fit fit = compare(out.source, *model, family);
  require(fit.difference.empty(), "{}: is no {}: {}", out.source.where, out.preset, fit.difference);
  if (const fs::path config = out.file.parent_path() / "config.json";
      fs::exists(config) && !out.diffusers) {
    require_config(config, *model, out.preset);
  }
  out.zero = fit.zero;
  out.source =
      with_zeros(out.source, *model, fit.zero, type_of(out.source, std::string(family.embedding)));
  out.stage = published_stage(out.file.parent_path());
  out.step = step_in(out.file.parent_path());
  return out;
}

}  // namespace minwm::models
