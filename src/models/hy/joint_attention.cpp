#include "joint_attention.h"

#include <algorithm>

namespace minwm::models {
namespace {

/// [B, N, A, D] one after the other along N, stored heads first as attention reads it.
at::Tensor cat_rows(const std::vector<at::Tensor>& parts) {
  std::vector<at::Tensor> heads_first;
  for (const auto& part : parts) {
    if (part.defined()) {
      heads_first.push_back(part.transpose(1, 2));
    }
  }
  return heads_first.size() == 1 ? heads_first.front().transpose(1, 2)
                                 : at::cat(heads_first, 2).transpose(1, 2);
}

/// Heads of both paths one after the other.
at::Tensor cat_paths(const at::Tensor& a, const at::Tensor& b) {
  return at::cat({a.transpose(1, 2), b.transpose(1, 2)}, 1).transpose(1, 2);
}

at::Tensor clips(const at::Tensor& x, const HySamples& group) {
  return x.defined() && x.size(0) != group.count ? x.narrow(0, group.first, group.count) : x;
}

Projections clips(const Projections& p, const HySamples& group) {
  return {clips(p.q, group), clips(p.k, group), clips(p.v, group)};
}

/// The text's rows as keys of `paths` paths: no position, no camera.
at::Tensor repeat_paths(const at::Tensor& x, int64_t paths) {
  return paths == 1 ? x : cat_paths(x, x);
}

}  // namespace

std::vector<HySamples> group_samples(const std::vector<int64_t>& lengths) {
  std::vector<HySamples> groups;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (groups.empty() || groups.back().text_rows != lengths[i]) {
      groups.push_back({static_cast<int64_t>(i), 0, lengths[i]});
    }
    ++groups.back().count;
  }
  return groups;
}

nn::FramePlan with_text(nn::FramePlan plan) {
  for (auto& chunk : plan.chunks) {
    std::vector<nn::FrameRange> sees = {{0, 1}};
    for (const auto& range : chunk.sees) {
      if (range.begin + 1 == sees.back().end) {
        sees.back().end = range.end + 1;
      } else {
        sees.push_back({range.begin + 1, range.end + 1});
      }
    }
    chunk.sees = std::move(sees);
  }
  plan.positions.insert(plan.positions.begin(), 0);
  return plan;
}

nn::FrameRows JointAttention::rows_with_text(int64_t text_rows) const {
  std::vector<int64_t> counts(static_cast<size_t>(plan.frames()), split.tokens);
  counts.front() = text_rows;
  return counts;
}

Projections JointAttention::exchange_text(const Projections& text, const HySamples& group) const {
  const auto own = [&](const at::Tensor& x) {
    return x.defined() ? split.context->split(clips(x, group).narrow(1, 0, group.text_rows), 1) : x;
  };
  return FrameSplit{split.context, group.text_rows, split.heads}.to_heads(
      {own(text.q), own(text.k), own(text.v)}, 1, text.q.defined() ? 1 : 0);
}

Projections JointAttention::keep(const Projections& image) const {
  return split.to_heads(image, frames, 0);
}

std::vector<Projections> JointAttention::keep_text(const Projections& text) const {
  std::vector<Projections> kept;
  for (const auto& group : samples) {
    const Projections own = exchange_text({{}, text.k, text.v}, group);
    // A copy: of a batch's rows only those that count.
    kept.push_back({{}, own.k.detach().clone(), own.v.detach().clone()});
  }
  return kept;
}

at::Tensor JointAttention::text_to_rows(const at::Tensor& heads, const HySamples& group) const {
  const at::Tensor rows = split.context->to_rows(heads, 1, group.text_rows, split.heads, 1);
  return split.context->join(rows, 1, group.text_rows);
}

at::Tensor JointAttention::attend_text(const Projections& text, const HySamples& group) const {
  const nn::FramePlan alone = nn::bidirectional_plan(1);
  return text_to_rows(
      split.context->attend(text.q, text.k, text.v, alone, nn::FrameRows(group.text_rows)), group);
}

HyBlockImpl::Heads JointAttention::attend_together(const Projections& image,
                                                   const Projections& text,
                                                   const HySamples& group) const {
  const auto& context = *split.context;
  const Geometry own = where.clips(group.first, group.count);
  const at::Tensor q = transform_queries(image.q, own), k = transform_keys(image.k, own),
                   v = transform_values(image.v, own);
  const int64_t heads = text.q.size(2);  // of this rank
  const nn::FrameRows rows = rows_with_text(group.text_rows);
  const auto path = [&](const at::Tensor& x, int64_t index) {
    return own.camera() ? x.narrow(2, index * heads, heads) : x;
  };
  // Text and image ask the rotary path's keys together; only the image asks the camera path's.
  const at::Tensor out =
      context.attend(cat_rows({text.q, path(q, 0)}), cat_rows({text.k, path(k, 0)}),
                     cat_rows({text.v, path(v, 0)}), nn::bidirectional_plan(plan.frames()), rows);
  const int64_t text_rows = text.q.size(1);
  at::Tensor seen = out.slice(1, text_rows);
  if (own.camera()) {
    seen = cat_paths(seen, context.attend(path(q, 1), cat_rows({text.k, path(k, 1)}),
                                          cat_rows({text.v, path(v, 1)}), plan, rows));
  }
  return {context.to_rows(seen, frames, split.tokens, split.heads, own.camera() ? 2 : 1),
          text_to_rows(out.narrow(1, 0, text_rows), group)};
}

HyBlockImpl::Heads JointAttention::attend_group(const Projections& image, const Projections& text,
                                                const HySamples& group,
                                                const Memory& memory) const {
  if (image.k.defined() && text.q.defined() && text_sees_image) {
    return attend_together(image, text, group);
  }
  HyBlockImpl::Heads out;
  if (text.q.defined()) {
    out.text = attend_text(text, group);
  }
  if (image.k.defined()) {
    const Geometry own = where.clips(group.first, group.count);
    const int64_t paths = own.camera() ? 2 : 1;
    const at::Tensor k = cat_rows({repeat_paths(text.k, paths), clips(memory.past_k, group),
                                   transform_keys(image.k, own)}),
                     v = cat_rows({repeat_paths(text.v, paths), clips(memory.past_v, group),
                                   transform_values(image.v, own)});
    const at::Tensor q = transform_queries(image.q, own.from(first, split.portion()));
    out.image = split.context->to_rows(
        split.context->attend(q, k, v, plan, rows_with_text(group.text_rows)), frames - first,
        split.tokens, split.heads, paths);
  }
  return out;
}

HyBlockImpl::Heads JointAttention::attend(const HyBlockImpl::Rows& rows,
                                          const Memory& memory) const {
  Projections image;
  if (rows.image.k.defined()) {
    image = split.to_heads(rows.image, frames, frames - first);
    if (memory.keep_image != nullptr) {
      memory.keep_image->push_back({{}, image.k, image.v});
    }
  }
  int64_t longest = 0;
  for (const auto& group : samples) {
    longest = std::max(longest, group.text_rows);
  }
  std::vector<at::Tensor> images, texts;
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto& group = samples[i];
    const Projections text =
        memory.text != nullptr ? (*memory.text)[i] : exchange_text(rows.text, group);
    if (memory.keep_text != nullptr) {
      memory.keep_text->push_back({{}, text.k.detach().clone(), text.v.detach().clone()});
    }
    const auto out = attend_group(clips(image, group), text, group, memory);
    if (out.image.defined()) {
      images.push_back(out.image);
    }
    if (out.text.defined()) {
      texts.push_back(at::constant_pad_nd(out.text, {0, 0, 0, 0, 0, longest - out.text.size(1)}));
    }
  }
  const auto whole = [](const std::vector<at::Tensor>& parts) {
    return parts.empty() ? at::Tensor() : parts.size() == 1 ? parts.front() : at::cat(parts);
  };
  return {whole(images), whole(texts)};
}

}  // namespace minwm::models
