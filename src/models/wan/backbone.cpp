#include "minwm/models/wan/backbone.h"

#include "minwm/core/error.h"
#include "minwm/core/random.h"
#include "minwm/nn/attention.h"
#include "minwm/nn/embedding.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

/// A module that only owns parameters under a published prefix.
struct Named : torch::nn::Module {};

}  // namespace

WanBackbone::WanBackbone(const WanConfig& config, uint64_t seed) : config_(config) {
  config.validate();
  const int64_t e = config.dim;
  using Spec = nn::NamedLinearsImpl::Spec;
  auto patch = register_module("patch_embedding", std::make_shared<Named>());
  patch_weight_ = patch->register_parameter(
      "weight", nn::make_parameter({e, config.in_dim, config.patch_size[0], config.patch_size[1],
                                    config.patch_size[2]}));
  patch_bias_ = patch->register_parameter("bias", nn::make_parameter({e}));
  text_embedding_ =
      register_module("text_embedding",
                      nn::NamedLinears(std::vector<Spec>{{"0", config.text_dim, e}, {"2", e, e}}));
  time_embedding_ =
      register_module("time_embedding",
                      nn::NamedLinears(std::vector<Spec>{{"0", config.freq_dim, e}, {"2", e, e}}));
  time_projection_ =
      register_module("time_projection", nn::NamedLinears(std::vector<Spec>{{"1", e, 6 * e}}));
  torch::nn::ModuleList blocks;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    blocks_.emplace_back(config);
    blocks->push_back(blocks_.back());
  }
  register_module("blocks", blocks);
  auto head = register_module("head", std::make_shared<Named>());
  head_modulation_ = head->register_parameter("modulation", nn::make_parameter({1, 2, e}));
  head_ = head->register_module("head", nn::Linear(e, config.patch_size[0] * config.patch_size[1] *
                                                          config.patch_size[2] * config.out_dim));
  if (config.model_type == "i2v") {
    auto image = register_module("img_emb", std::make_shared<Named>());
    const int64_t c = config.clip_dim;
    auto proj = image->register_module("proj", std::make_shared<Named>());
    image_embedding_ = {proj->register_module("0", nn::AffineLayerNorm(c)),
                        proj->register_module("1", nn::Linear(c, c)),
                        proj->register_module("3", nn::Linear(c, e)),
                        proj->register_module("4", nn::AffineLayerNorm(e))};
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

void WanBackbone::set_activation_checkpointing(bool enabled) {
  set_unit_runner(std::make_shared<nn::LocalUnits>(units(), enabled));
}

void WanBackbone::initialise(const std::string& name, at::Tensor& p, uint64_t seed) const {
  const std::string purpose = "init." + name;
  auto uniform = [&](double bound) {
    p.copy_((random_uniform(p.sizes(), {seed, purpose}) * 2 - 1) * bound);
  };
  auto normal = [&](double std) { p.copy_(random_normal(p.sizes(), {seed, purpose}) * std); };
  const bool camera_projection = name.find("prope_o") != std::string::npos;
  if (name.ends_with("modulation")) {
    normal(1 / std::sqrt(static_cast<double>(config_.dim)));
  } else if (name == "patch_embedding.bias") {
    uniform(1 / std::sqrt(static_cast<double>(patch_weight_.numel() / patch_weight_.size(0))));
  } else if (name == "head.head.weight" || (camera_projection && config_.camera_init_zero)) {
    p.zero_();
  } else if (name.ends_with(".bias")) {
    p.zero_();
  } else if (name.find("norm") != std::string::npos || name.rfind("img_emb.proj.0", 0) == 0 ||
             name.rfind("img_emb.proj.4", 0) == 0) {
    p.fill_(1);
  } else if (name.rfind("text_embedding", 0) == 0 || name.rfind("time_embedding", 0) == 0) {
    normal(0.02);
  } else {
    const double fan = static_cast<double>(p.size(0) + p.numel() / p.size(0));
    uniform(std::sqrt(6 / fan));  // Xavier
  }
}

WanBackbone::Grid WanBackbone::grid(const at::Tensor& latents) const {
  require(latents.dim() == 5, "wan: latents must be [B, T, C, H, W], have {} axes", latents.dim());
  const auto& patch = config_.patch_size;
  require(latents.size(3) % patch[1] == 0 && latents.size(4) % patch[2] == 0,
          "wan: latents of {}x{} do not divide into patches of {}x{}", latents.size(3),
          latents.size(4), patch[1], patch[2]);
  const Grid g{latents.size(0), latents.size(1), latents.size(3) / patch[1],
               latents.size(4) / patch[2]};
  require(g.tokens() >= context_->size(),
          "parallel.context: {} ranks cannot share the {} tokens of a latent frame",
          context_->size(), g.tokens());
  return g;
}

at::Tensor WanBackbone::embed_patches(const at::Tensor& latents,
                                      const at::Tensor& image_latents) const {
  const at::Tensor x = image_latents.defined() ? at::cat({latents, image_latents}, 2) : latents;
  require(x.size(2) == config_.in_dim, "wan: {} input channels, expected {}", x.size(2),
          config_.in_dim);
  const Grid g = grid(x);
  const int64_t ph = config_.patch_size[1], pw = config_.patch_size[2];
  const at::Tensor patches = x.reshape({g.batch, g.frames, x.size(2), g.height, ph, g.width, pw})
                                 .permute({0, 1, 3, 5, 2, 4, 6})
                                 .reshape({g.batch, g.frames, g.tokens(), -1});
  return at::linear(context_->scatter(patches, 2), patch_weight_.flatten(1), patch_bias_);
}

WanBackbone::TimeEmbedding WanBackbone::embed_time(const at::Tensor& timestep) const {
  const at::Tensor s = nn::timestep_sinusoid(timestep, config_.freq_dim);
  const at::Tensor hidden = at::silu(nn::linear(s, (*time_embedding_)[0], at::kFloat));
  TimeEmbedding out;
  out.e = nn::linear(hidden, (*time_embedding_)[1], at::kFloat);
  out.e0 = nn::linear(at::silu(out.e), (*time_projection_)[0], at::kFloat)
               .unflatten(-1, {6, config_.dim});
  return out;
}

at::Tensor WanBackbone::embed_text(const Conditions& conditions, int64_t* image_rows) {
  const at::Tensor& text = conditions.text;
  require(text.defined() && text.dim() == 3 && text.size(2) == config_.text_dim,
          "wan: text must be [B, L, {}]", config_.text_dim);
  require(text.size(1) <= config_.text_len, "wan: {} text rows, at most {}", text.size(1),
          config_.text_len);
  // Rows past the text are zero and count: they become a constant vector that is attended to.
  const at::Tensor padded = at::constant_pad_nd(text, {0, 0, 0, config_.text_len - text.size(1)});
  at::Tensor context =
      nn::linear(at::gelu(nn::linear(padded, (*text_embedding_)[0], compute_), "tanh"),
                 (*text_embedding_)[1], compute_)
          .to(at::kFloat);
  *image_rows = 0;
  if (conditions.image_features.defined()) {
    require(image_embedding_.has_value(), "wan: image features were given to a {} model",
            config_.model_type);
    const auto& m = *image_embedding_;
    const at::Tensor image = m.after->forward(
        m.out->forward(at::gelu(m.in->forward(m.before->forward(conditions.image_features)))));
    *image_rows = image.size(1);
    context = at::cat({image, context}, 1);
  }
  return context;
}

nn::RotaryAxes WanBackbone::rotary_axes() const {
  return {nn::rotary_split(config_.dim / config_.num_heads)};
}

Geometry WanBackbone::geometry(const std::vector<int64_t>& positions, const Grid& g,
                               const camera::Cameras& cameras) const {
  require(config_.camera || !cameras.defined(),
          "wan: cameras were given to a model without camera projections");
  return make_geometry(positions, g.height, g.width, rotary_axes(), cameras, *context_,
                       patch_weight_.device());
}

at::Tensor WanBackbone::head(const at::Tensor& x, const at::Tensor& e, const Grid& g) const {
  const at::Tensor shift = (e + head_modulation_.select(1, 0)).unsqueeze(2);
  const at::Tensor scale = (e + head_modulation_.select(1, 1)).unsqueeze(2);
  const at::Tensor y = at::addcmul(shift, nn::layer_norm(x, config_.eps), 1 + scale);
  const int64_t ph = config_.patch_size[1], pw = config_.patch_size[2], c = config_.out_dim;
  return context_->gather(nn::linear(y, head_, compute_).to(at::kFloat), 2, g.tokens())
      .view({g.batch, g.frames, g.height, g.width, ph, pw, c})
      .permute({0, 1, 6, 2, 4, 3, 5})
      .reshape({g.batch, g.frames, c, g.height * ph, g.width * pw});
}

namespace {

/// Of transformed queries, keys and values: the output for this rank's rows, all heads.
at::Tensor attend_split(const FrameSplit& split, const Projections& p, const nn::FramePlan& plan,
                        bool camera) {
  const int64_t paths = camera ? 2 : 1, asking = plan.frames() - plan.first_query();
  return split.context->to_rows(split.context->attend(p.q, p.k, p.v, plan, split.tokens), asking,
                                split.tokens, split.heads, paths);
}

}  // namespace

at::Tensor WanBackbone::forward(const ForwardInput& input) {
  const auto present = unit_runner()->begin();
  const Grid g = grid(input.latents);
  require(input.timestep.dim() == 2 && input.timestep.size(1) == g.frames,
          "wan: timestep must be [B, {}], one per latent frame", g.frames);
  const bool forced = input.clean_latents.defined();
  // The last clean chunk is left out: no noisy chunk sees it.
  require(!forced || (input.chunk_frames > 0 && g.frames % input.chunk_frames == 0),
          "teacher forcing: {} latent frames are not a multiple of the chunk of {}", g.frames,
          input.chunk_frames);
  const auto plan = forced ? nn::teacher_forcing_plan(g.frames, input.chunk_frames, false)
                    : input.chunk_frames > 0 ? nn::block_causal_plan(g.frames, input.chunk_frames)
                                             : nn::bidirectional_plan(g.frames);
  const int64_t clean = plan.frames() - g.frames;
  Geometry where = geometry(positions_from(0, g.frames), g, input.conditions.cameras);
  at::Tensor x = embed_patches(input.latents, input.conditions.image_latents);
  TimeEmbedding time = embed_time(input.timestep);
  at::Tensor e0 = time.e0;
  if (forced) {
    require(input.clean_latents.sizes() == input.latents.sizes(),
            "wan: clean and noisy latents differ in shape");
    const at::Tensor clean_t =
        input.clean_timestep.defined() ? input.clean_timestep : at::zeros_like(input.timestep);
    auto in_front = [clean](const at::Tensor& first, const at::Tensor& second, int64_t axis,
                            int64_t each) {
      return clean > 0 ? at::cat({first.narrow(axis, 0, clean * each), second}, axis) : second;
    };
    x = in_front(embed_patches(input.clean_latents, input.conditions.image_latents), x, 1, 1);
    e0 = in_front(embed_time(clean_t).e0, e0, 1, 1);
    where.rotary = in_front(where.rotary, where.rotary, 0, context_->portion(g.tokens()).count);
    if (where.camera()) {
      where.p = in_front(where.p, where.p, 1, 1);
      where.p_inverse = in_front(where.p_inverse, where.p_inverse, 1, 1);
    }
  }
  int64_t image_rows = 0;
  const at::Tensor text = embed_text(input.conditions, &image_rows);
  const FrameSplit split{context_, g.tokens(), config_.num_heads};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    // Nobody reads clean frames after the last block.
    const int64_t first = i + 1 == blocks_.size() ? clean : 0;
    auto run = [this, where, plan, image_rows, split, block = blocks_[i],
                first](const nn::Tensors& in) -> nn::Tensors {
      const auto attend = [&](const Projections& rows) {
        const Projections p = split.to_heads(rows, plan.frames(), plan.frames() - first);
        return attend_split(split,
                            {transform_queries(p.q, where.from(first, split.portion())),
                             transform_keys(p.k, where), transform_values(p.v, where)},
                            nn::queries_from(plan, first), where.camera());
      };
      const CrossContext context =
          block->cross_attention()->project_context(in[2], image_rows, compute_);
      return {block->forward(in[0], in[1], where, context, attend, compute_, first)};
    };
    x = unit_runner()->run(i, run, {x, e0, text}).front();
  }
  return head(x, time.e, g);
}

void WanKvCache::reset() {
  FrameKvCache::reset();
  text_ = image_features_ = at::Tensor();
  cross_ = std::make_shared<std::vector<CrossContext>>();
}

at::Tensor WanBackbone::stream_text(WanKvCache& cache, const StreamInput& input,
                                    int64_t* image_rows) {
  const Conditions& conditions = input.conditions;
  const c10::AutoGradMode mode(at::GradMode::is_enabled() && !input.constant_text);
  // A commit alone leaves the last layer's out.
  const bool same = !cache.cross_->empty() && cache.cross_->back().k.defined() &&
                    cache.text_.is_same(conditions.text) &&
                    cache.image_features_.is_same(conditions.image_features);
  if (!same) {
    cache.cross_ = std::make_shared<std::vector<CrossContext>>(blocks_.size());
    cache.text_ = conditions.text;
    cache.image_features_ = conditions.image_features;
  }
  // Under gradients the text's keys and values belong to the graph and are made anew; calls without
  // gradients use their values.
  return same && !at::GradMode::is_enabled() ? at::Tensor() : embed_text(conditions, image_rows);
}

namespace {

/// A layer's keys and values of the text: kept ones where they are constant, else those of `text`.
CrossContext text_context(CrossContext& kept, const WanBlock& block, const at::Tensor& text,
                          int64_t image_rows, bool constant, at::ScalarType compute) {
  const c10::AutoGradMode mode(at::GradMode::is_enabled() && !constant);
  if (kept.k.defined() && !at::GradMode::is_enabled()) {
    return kept;
  }
  const CrossContext made = block->cross_attention()->project_context(text, image_rows, compute);
  if (!kept.k.defined()) {
    const auto constant_part = [](const at::Tensor& x) { return x.defined() ? x.detach() : x; };
    kept = {constant_part(made.k), constant_part(made.v), constant_part(made.k_image),
            constant_part(made.v_image)};
  }
  return made;
}

}  // namespace

at::Tensor WanBackbone::stream(const StreamInput& input, KvCache& base) {
  const c10::AutoGradMode mode(at::GradMode::is_enabled() && !input.commit);
  const auto present = unit_runner()->begin();
  auto& cache = dynamic_cast<WanKvCache&>(base);
  const Grid g = grid(input.latents);
  require(input.timestep.dim() == 2 && input.timestep.size(1) == g.frames,
          "wan: timestep must be [B, {}], one per latent frame", g.frames);
  cache.make_room(g.frames);
  const auto own = positions_from(cache.frames_seen(), g.frames);
  const Geometry where = geometry(own, g, input.conditions.cameras);
  const Geometry before = cache.context_geometry(where.camera(), *context_, where.rotary.device());
  const FrameSplit split{context_, g.tokens(), config_.num_heads};
  // The chunk sees what the cache holds and itself.
  nn::FramePlan plan{{{{0, g.frames}, {{0, cache.frames_held() + g.frames}}}}, cache.positions()};
  plan.positions.insert(plan.positions.end(), own.begin(), own.end());
  int64_t image_rows = 0;
  const at::Tensor text = stream_text(cache, input, &image_rows);
  const TimeEmbedding time = embed_time(input.timestep);
  at::Tensor x = embed_patches(input.latents, input.conditions.image_latents);
  const bool may_keep = !at::GradMode::is_enabled() || !unit_runner()->recomputes();
  std::vector<Projections> committed;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    // Nobody reads past the keys and values of a commit's last block.
    const bool keys_only = input.commit && i + 1 == blocks_.size();
    auto run = [this, block = blocks_[i], i, g, where, split, plan, image_rows,
                cross = cache.cross_, past = cache.past(static_cast<int64_t>(i), before, may_keep),
                constant = input.constant_text, keys_only,
                commit =
                    input.commit ? &committed : nullptr](const nn::Tensors& in) -> nn::Tensors {
      if (keys_only) {
        commit->push_back(split.to_heads(block->project(in[0], in[1], compute_), g.frames, 0));
        return {in[0]};
      }
      const auto attend = [&](const Projections& rows) {
        const Projections p = split.to_heads(rows, g.frames, g.frames);
        if (commit != nullptr) {
          commit->push_back(p);
        }
        at::Tensor k = transform_keys(p.k, where), v = transform_values(p.v, where);
        const auto [past_k, past_v] = past.read();
        if (past_k.defined()) {
          k = at::cat({past_k, k}, 1);
          v = at::cat({past_v, v}, 1);
        }
        return attend_split(split, {transform_queries(p.q, where), k, v}, plan, where.camera());
      };
      const CrossContext context =
          text_context((*cross)[i], block, in[2], image_rows, constant, compute_);
      return {block->forward(in[0], in[1], where, context, attend, compute_)};
    };
    x = unit_runner()->run(i, run, {x, time.e0, text}).front();
  }
  if (input.commit) {
    cache.commit(committed, where.p_inverse, g.frames);
    return {};
  }
  return head(x, time.e, g);
}

std::unique_ptr<KvCache> WanBackbone::make_cache(const CacheOptions& options, int64_t height,
                                                 int64_t width) {
  return std::make_unique<WanKvCache>(options, config_.num_layers, height / config_.patch_size[1],
                                      width / config_.patch_size[2], rotary_axes());
}

std::vector<std::shared_ptr<torch::nn::Module>> WanBackbone::units() {
  std::vector<std::shared_ptr<torch::nn::Module>> units;
  for (const auto& block : blocks_) {
    units.push_back(block.ptr());
  }
  return units;
}

}  // namespace minwm::models
