#include "minwm/models/hy/backbone.h"

#include <cmath>

#include "joint_attention.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

/// A module that only owns parameters under a published prefix.
struct Named : torch::nn::Module {};

}  // namespace

HyBackbone::HyBackbone(const HyConfig& config, uint64_t seed) : config_(config) {
  config.validate();
  const int64_t d = config.hidden_size;
  patch_embedder_ = register_module("img_in", HyPatchEmbedder(config));
  time_in_ = register_module("time_in", HyTimeEmbedder(d));
  text_.text = register_module("txt_in", HyTokenRefiner(config));
  text_.byt5 = register_module("byt5_in", HyByt5Mapper(config));
  text_.vision = register_module("vision_in", HyVisionMapper(config));
  text_.type_table = register_module("cond_type_embedding", std::make_shared<Named>())
                         ->register_parameter("weight", nn::make_parameter({3, d}));
  torch::nn::ModuleList blocks;
  for (int64_t i = 0; i < config.mm_double_blocks_depth; ++i) {
    blocks_.emplace_back(config);
    blocks->push_back(blocks_.back());
  }
  register_module("double_blocks", blocks);
  final_layer_ = register_module("final_layer", HyFinalLayer(config));
  if (config.action) {
    action_in_ = register_module("action_in", HyTimeEmbedder(d));
  }
  for (const auto& item : named_parameters()) {
    if (item.key().ends_with("weight")) {
      const at::Tensor& weight = item.value();
      fan_in_[item.key()] = weight.dim() > 1 ? weight.numel() / weight.size(0) : 0;
    }
  }
  set_activation_checkpointing(false);
  if (nn::HollowParameters::active()) {
    return;
  }
  at::NoGradGuard no_grad;
  for (auto& item : named_parameters()) {
    initialise(item.key(), item.value(), seed);
  }
}

void HyBackbone::set_activation_checkpointing(bool enabled) {
  set_unit_runner(std::make_shared<nn::LocalUnits>(units(), enabled));
}

void HyBackbone::initialise(const std::string& name, at::Tensor& p, uint64_t seed) const {
  const auto contains = [&](const char* part) { return name.find(part) != std::string::npos; };
  const auto uniform = [&](at::Tensor values, double bound) {
    values.copy_((random_uniform(values.sizes(), {seed, "init." + name}) * 2 - 1) * bound);
  };
  const bool bias = name.ends_with("bias");
  const std::string weight = bias ? name.substr(0, name.size() - 4) + "weight" : name;
  const int64_t fan_in = fan_in_.at(weight);
  const bool zero = contains("_mod.linear") || contains("adaLN_modulation") ||
                    contains("final_layer.linear") || contains("cond_type_embedding") ||
                    contains("action_in.mlp.2") ||
                    (contains("prope_proj") && config_.camera_init_zero);
  if (zero || (bias && fan_in == 0) || name == "img_in.proj.bias") {
    p.zero_();
  } else if (fan_in == 0) {
    p.fill_(1);  // a norm
  } else if (name == "img_in.proj.weight") {
    // Xavier over the channels that carry noise; the conditioning channels start unseen.
    p.zero_();
    const int64_t fan = config_.in_channels * config_.patch_size[1] * config_.patch_size[2];
    uniform(p.narrow(1, 0, config_.in_channels),
            std::sqrt(6 / static_cast<double>(fan + config_.hidden_size)));
  } else if (!bias && (contains("time_in") || contains("t_embedder") || contains("action_in"))) {
    p.copy_(random_normal(p.sizes(), {seed, "init." + name}) * 0.02);
  } else {
    uniform(p, 1 / std::sqrt(static_cast<double>(fan_in)));
  }
}

HyBackbone::Grid HyBackbone::grid(const at::Tensor& latents) const {
  require(latents.dim() == 5, "hy: latents must be [B, T, C, H, W], have {} axes", latents.dim());
  require(latents.size(2) == config_.in_channels, "hy: {} latent channels, expected {}",
          latents.size(2), config_.in_channels);
  const auto& patch = config_.patch_size;
  require(latents.size(3) % patch[1] == 0 && latents.size(4) % patch[2] == 0,
          "hy: latents of {}x{} do not divide into patches of {}x{}", latents.size(3),
          latents.size(4), patch[1], patch[2]);
  const Grid g{latents.size(0), latents.size(1), latents.size(3) / patch[1],
               latents.size(4) / patch[2]};
  require(g.tokens() >= context_->size(),
          "parallel.context: {} ranks cannot share the {} tokens of a latent frame",
          context_->size(), g.tokens());
  return g;
}

nn::RotaryAxes HyBackbone::rotary_axes() const {
  const auto& dims = config_.rope_dim_list;
  return {{dims[0] / 2, dims[1] / 2, dims[2] / 2}, config_.rope_theta};
}

Geometry HyBackbone::geometry(const std::vector<int64_t>& positions, const Grid& g,
                              const camera::Cameras& cameras) const {
  require(config_.camera || !cameras.defined(),
          "hy: cameras were given to a model without camera projections");
  return make_geometry(positions, g.height, g.width, rotary_axes(), cameras, *context_,
                       patch_embedder_->weight.device());
}

at::Tensor HyBackbone::embed_patches(const at::Tensor& latents,
                                     const at::Tensor& image_latents) const {
  auto shape = latents.sizes().vec();
  shape[2] = config_.in_channels + 1;
  require(!image_latents.defined() || image_latents.sizes() == shape,
          "hy: image latents must be {}, are {}", c10::str(at::IntArrayRef(shape)),
          image_latents.defined() ? c10::str(image_latents.sizes()) : "");
  const at::Tensor image = image_latents.defined() ? image_latents.to(latents.scalar_type())
                                                   : at::zeros(shape, latents.options());
  const at::Tensor patches =
      hy_patches(at::cat({latents, image}, 2), config_.patch_size[1], config_.patch_size[2]);
  return patch_embedder_->forward(context_->scatter(patches, 2));
}

HyVectors HyBackbone::frame_vectors(const at::Tensor& timestep, const at::Tensor& actions) const {
  require(!config_.action || actions.defined(),
          "hy: this model reads discrete actions, and none were given");
  // Frames that are told nothing (-1) share vectors with frames of a model without actions.
  at::Tensor told = timestep.to(at::kDouble).flatten().unsqueeze(1);
  if (config_.action) {
    require(actions.sizes() == timestep.sizes(), "hy: actions {} for timesteps {}",
            c10::str(actions.sizes()), c10::str(timestep.sizes()));
    told = at::cat({told, actions.to(at::kDouble).flatten().unsqueeze(1)}, 1);
  }
  const auto [distinct, index, counts] = at::unique_dim(told, 0, true, true);
  HyVectors out{time_in_->forward(distinct.select(1, 0)), index.view(timestep.sizes())};
  if (config_.action) {
    const at::Tensor action = distinct.select(1, 1);
    const at::Tensor vector = action_in_->forward(action.clamp_min(0));
    out.rows = out.rows + at::where((action >= 0).unsqueeze(1), vector, at::zeros_like(vector));
  }
  return out;
}

HyVectors HyBackbone::text_vectors(const at::Tensor& timestep) const {
  const auto [distinct, index, counts] = at::unique_dim(timestep.to(at::kDouble), 0, true, true);
  return {time_in_->forward(distinct), index.unsqueeze(1)};
}

at::Tensor HyBackbone::head(const at::Tensor& x, const HyVectors& vectors, const Grid& g) const {
  const at::Tensor vec =
      vectors.rows.index_select(0, vectors.index.flatten()).unflatten(0, vectors.index.sizes());
  const at::Tensor patches =
      context_->gather(final_layer_->forward(x, vec, compute_).to(at::kFloat), 2, g.tokens());
  return hy_unpatch(patches, g.height, g.width, config_.patch_size[1], config_.patch_size[2]);
}

Conditions HyBackbone::with_first_latent(const Conditions& conditions,
                                         const at::Tensor& first_latent, int64_t frames) const {
  Conditions out = conditions;
  out.text_to_video = !first_latent.defined();
  if (!first_latent.defined()) {
    out.image_latents = at::Tensor();
    if (config_.latent_vision) {
      out.vision = at::Tensor();
    }
    return out;
  }
  require(first_latent.dim() == 5 && first_latent.size(1) == 1 &&
              first_latent.size(2) == config_.in_channels,
          "hy: the first latent must be [B, 1, {}, H, W], is {}", config_.in_channels,
          c10::str(first_latent.sizes()));
  out.image_latents = hy_image_channels(first_latent, frames);
  if (config_.latent_vision) {
    out.vision = hy_patches(first_latent, config_.patch_size[1], config_.patch_size[2]).squeeze(1);
  }
  return out;
}

void HyBackbone::set_stream_switches(const StreamSwitches& switches) {
  require(!switches.rope_only_history || config_.camera,
          "hy: camera_cache = rope_only: this model reads no cameras");
  require(!switches.context_action || config_.action,
          "hy: context_action = true: this model reads no actions");
  switches_ = switches;
}

void HyBackbone::check_batch(const at::Tensor& timestep, const Conditions& conditions,
                             const Grid& g) const {
  require(timestep.dim() == 2 && timestep.size(0) == g.batch && timestep.size(1) == g.frames,
          "hy: timestep must be [{}, {}], one per sample and latent frame, is {}", g.batch,
          g.frames, c10::str(timestep.sizes()));
  const auto check = [&](const at::Tensor& tensor, const char* name) {
    require(!tensor.defined() || tensor.size(0) == g.batch,
            "hy: {} of {} samples for latents of {}", name, tensor.defined() ? tensor.size(0) : 0,
            g.batch);
  };
  check(conditions.text, "text");
  check(conditions.text_mask, "text_mask");
  check(conditions.byt5, "byt5");
  check(conditions.vision, "vision");
  check(conditions.image_latents, "image_latents");
  check(conditions.actions, "actions");
  check(conditions.cameras.world_to_camera, "cameras");
}

at::Tensor HyBackbone::forward(const ForwardInput& input) {
  const auto present = unit_runner()->begin();
  const Grid g = grid(input.latents);
  check_batch(input.timestep, input.conditions, g);
  const bool causal = input.chunk_frames > 0, forced = input.clean_latents.defined();
  require(causal || !forced, "hy: clean latents without chunk_frames");
  // The last clean chunk is left out: no noisy chunk sees it.
  const auto plan = forced   ? nn::teacher_forcing_plan(g.frames, input.chunk_frames, false)
                    : causal ? nn::block_causal_plan(g.frames, input.chunk_frames)
                             : nn::bidirectional_plan(g.frames);
  const int64_t clean = plan.frames() - g.frames;
  const Conditions& conditions = input.conditions;
  at::Tensor x = embed_patches(input.latents, conditions.image_latents);
  at::Tensor timestep = input.timestep, actions = conditions.actions;
  if (clean > 0) {
    require(input.clean_latents.sizes() == input.latents.sizes(),
            "hy: clean and noisy latents differ in shape");
    x = at::cat(
        {embed_patches(input.clean_latents, conditions.image_latents).narrow(1, 0, clean), x}, 1);
    const at::Tensor clean_t =
        input.clean_timestep.defined() ? input.clean_timestep : at::zeros_like(timestep);
    timestep = at::cat({clean_t.narrow(1, 0, clean), timestep}, 1);
    if (actions.defined()) {  // clean frames are not told theirs
      actions = at::cat({at::full_like(actions.narrow(1, 0, clean), -1), actions}, 1);
    }
  }
  Geometry where = geometry(positions_from(0, g.frames), g, conditions.cameras);
  if (clean > 0) {
    const int64_t portion = context_->portion(g.tokens()).count;
    where.rotary = at::cat({where.rotary.narrow(0, 0, clean * portion), where.rotary});
    if (where.camera()) {
      where.p = at::cat({where.p.narrow(1, 0, clean), where.p}, 1);
      where.p_inverse = at::cat({where.p_inverse.narrow(1, 0, clean), where.p_inverse}, 1);
    }
  }
  const HyVectors vectors = frame_vectors(timestep, actions);
  const at::Tensor text_timestep = input.text_timestep.defined()
                                       ? input.text_timestep
                                       : at::zeros({g.batch}, input.timestep.options());
  const HyTextStream text = text_.assemble(conditions, text_timestep, config_, compute_);
  const HyVectors text_vec = text_vectors(text_timestep);
  JointAttention attention{{context_, g.tokens(), config_.heads_num},
                           group_samples(text.lengths),
                           with_text(plan),
                           where,
                           plan.frames()};
  attention.text_sees_image = !causal;
  nn::Tensors state = {x, text.rows};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    // Nobody reads the text after the last block, nor the clean frames.
    const bool last = i + 1 == blocks_.size();
    auto mine = attention;
    mine.first = last ? clean : 0;
    mine.plan = nn::queries_from(mine.plan, mine.first);
    HyBlockImpl::Call call{{}, {}, where, mine.first, !last};
    auto run = [this, mine, call, index = vectors.index, text_index = text_vec.index,
                block = blocks_[i]](const nn::Tensors& in) -> nn::Tensors {
      HyBlockImpl::Call with = call;
      with.image = {in[2], index};
      with.text = {in[3], text_index};
      const auto left = block->forward(
          {in[0], in[1]}, with,
          [&](const HyBlockImpl::Rows& rows) { return mine.attend(rows, {}); }, compute_);
      return left.text.defined() ? nn::Tensors{left.image, left.text} : nn::Tensors{left.image};
    };
    state = unit_runner()->run(i, run, {state[0], state[1], vectors.rows, text_vec.rows});
  }
  return head(state[0], {vectors.rows, vectors.index.slice(1, clean)}, g);
}

std::unique_ptr<KvCache> HyBackbone::make_cache(const CacheOptions& options, int64_t height,
                                                int64_t width) {
  return std::make_unique<HyKvCache>(options, config_.mm_double_blocks_depth,
                                     height / config_.patch_size[1], width / config_.patch_size[2],
                                     rotary_axes());
}

std::vector<std::shared_ptr<torch::nn::Module>> HyBackbone::units() {
  std::vector<std::shared_ptr<torch::nn::Module>> units;
  for (const auto& block : blocks_) {
    units.push_back(block.ptr());
  }
  return units;
}

}  // namespace minwm::models
