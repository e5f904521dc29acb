// Streaming of the HunyuanVideo-1.5 MMDiT over a KV cache (spec hy-mmdit 11).

#include "joint_attention.h"
#include "minwm/core/error.h"
#include "minwm/models/hy/backbone.h"

namespace minwm::models {
namespace {

/// What the text stream is made of.
std::vector<at::Tensor> text_source(const Conditions& c) {
  return {c.text, c.text_mask, c.byt5, c.byt5_mask, c.vision};
}

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [](const at::Tensor& x, const at::Tensor& y) { return x.is_same(y); });
}

}  // namespace

void HyKvCache::reset() {
  FrameKvCache::reset();
  source_.clear();
  samples_.clear();
  text_ = std::make_shared<std::vector<Text>>();
}

void HyBackbone::cache_text(HyKvCache& cache, const StreamInput& input) {
  auto source = text_source(input.conditions);
  const bool text_to_video = input.conditions.text_to_video;
  if (!cache.text_->empty() && same(cache.source_, source) &&
      cache.text_to_video_ == text_to_video) {
    return;
  }
  at::NoGradGuard constants;
  const at::Tensor timestep = at::zeros({input.latents.size(0)}, input.timestep.options());
  const HyTextStream text = text_.assemble(input.conditions, timestep, config_, compute_);
  const HyVectors vectors = text_vectors(timestep);
  JointAttention attention;
  attention.split = {context_, 1, config_.heads_num};
  attention.samples = group_samples(text.lengths);
  auto kept = std::make_shared<std::vector<HyKvCache::Text>>(blocks_.size());
  at::Tensor rows = text.rows;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const bool last = i + 1 == blocks_.size();
    auto run = [this, last, &attention, &vectors, &groups = (*kept)[i].groups,
                block = blocks_[i]](const nn::Tensors& in) -> nn::Tensors {
      if (last) {
        groups = attention.keep_text(block->text_keys(in[0], vectors, compute_));
        return {in[0]};
      }
      JointAttention::Memory memory;
      memory.keep_text = &groups;
      HyBlockImpl::Call call;
      call.text = vectors;
      return {block
                  ->forward(
                      {{}, in[0]}, call,
                      [&](const HyBlockImpl::Rows& r) { return attention.attend(r, memory); },
                      compute_)
                  .text};
    };
    rows = unit_runner()->run(i, run, {rows}).front();
  }
  cache.source_ = std::move(source);
  cache.text_to_video_ = text_to_video;
  cache.samples_ = attention.samples;
  cache.text_ = std::move(kept);
}

at::Tensor HyBackbone::stream(const StreamInput& input, KvCache& base) {
  const c10::AutoGradMode mode(at::GradMode::is_enabled() && !input.commit);
  const auto present = unit_runner()->begin();
  auto& cache = dynamic_cast<HyKvCache&>(base);
  const Grid g = grid(input.latents);
  check_batch(input.timestep, input.conditions, g);
  const Conditions& conditions = input.conditions;
  // Under gradients that reach the text its rows run along; else they are the cached ones.
  const bool text_runs = at::GradMode::is_enabled() && !input.constant_text;
  HyTextStream text;
  HyVectors text_vec;
  if (text_runs) {
    const at::Tensor timestep = at::zeros({g.batch}, input.timestep.options());
    text = text_.assemble(conditions, timestep, config_, compute_);
    text_vec = text_vectors(timestep);
  } else {
    cache_text(cache, input);
  }
  cache.make_room(g.frames);
  const auto own = positions_from(cache.frames_seen(), g.frames);
  const Geometry where = geometry(own, g, conditions.cameras);
  const Geometry before = cache.context_geometry(where.camera(), *context_, where.rotary.device());
  // The chunk sees the text, what the cache holds, and itself.
  nn::FramePlan plan{{{{0, g.frames}, {{0, cache.frames_held() + g.frames}}}}, cache.positions()};
  plan.positions.insert(plan.positions.end(), own.begin(), own.end());
  const JointAttention attention{{context_, g.tokens(), config_.heads_num},
                                 text_runs ? group_samples(text.lengths) : cache.samples_,
                                 with_text(plan),
                                 where,
                                 g.frames};
  const bool told = config_.action && (!input.commit || switches_.context_action);
  const HyVectors vectors = frame_vectors(
      input.timestep, !config_.action || told
                          ? conditions.actions
                          : at::full(input.timestep.sizes(), -1, input.timestep.options()));
  const bool may_keep = !at::GradMode::is_enabled() || !unit_runner()->recomputes();
  std::vector<Projections> committed;
  nn::Tensors state = {embed_patches(input.latents, conditions.image_latents), text.rows};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const bool last = i + 1 == blocks_.size();
    HyBlockImpl::Call call{{}, {}, where, 0, !last};
    auto run =
        [this, attention, call, last, index = vectors.index, text_index = text_vec.index, i,
         cached = text_runs ? nullptr : cache.text_, block = blocks_[i],
         past = cache.past(static_cast<int64_t>(i), before, may_keep, switches_.rope_only_history),
         commit = input.commit ? &committed : nullptr](const nn::Tensors& in) -> nn::Tensors {
      // Nobody reads past the keys and values of a commit's last block.
      if (commit != nullptr && last) {
        commit->push_back(attention.keep(block->image_keys(in[0], {in[2], index}, compute_)));
        return {in[0]};
      }
      HyBlockImpl::Call with = call;
      with.image = {in[2], index};
      with.text = {in[3], text_index};
      JointAttention::Memory memory;
      std::tie(memory.past_k, memory.past_v) = past.read();
      memory.text = cached != nullptr ? &(*cached)[i].groups : nullptr;
      memory.keep_image = commit;
      const auto left = block->forward(
          {in[0], in[1]}, with,
          [&](const HyBlockImpl::Rows& rows) { return attention.attend(rows, memory); }, compute_);
      return left.text.defined() ? nn::Tensors{left.image, left.text} : nn::Tensors{left.image};
    };
    state = unit_runner()->run(
        i, run,
        {state[0], state.size() > 1 ? state[1] : at::Tensor(), vectors.rows, text_vec.rows});
  }
  if (input.commit) {
    cache.commit(committed, where.p_inverse, g.frames);
    return {};
  }
  return head(state[0], vectors, g);
}

}  // namespace minwm::models
