#pragma once
// Attention in which image rows and text rows meet (spec hy-mmdit 7, 8, 10, 11). The text stands as
// frame 0 of the sequence, before the frames of the past and the block's own.

#include <utility>
#include <vector>

#include "minwm/models/hy/backbone.h"

namespace minwm::models {

/// Samples of a batch by their number of text rows.
std::vector<HySamples> group_samples(const std::vector<int64_t>& lengths);

/// A plan of image frames with the text in front of what every chunk sees.
nn::FramePlan with_text(nn::FramePlan plan);

struct JointAttention {
  FrameSplit split;
  std::vector<HySamples> samples;
  nn::FramePlan plan;  ///< with_text: the queries are those of the image's asking frames
  Geometry where;      ///< of the block's own frames
  int64_t frames = 0;  ///< own ones
  int64_t first = 0;   ///< own frames before it do not ask
  /// Text rows see the image too (bidirectional); else themselves only.
  bool text_sees_image = false;

  /// Keys and values from elsewhere, and where to keep the block's own (may be null).
  struct Memory {
    at::Tensor past_k, past_v;                       ///< transformed, [B, rows, A or 2A, D]
    const std::vector<Projections>* text = nullptr;  ///< instead of the block's text rows
    std::vector<Projections>* keep_text = nullptr;   ///< per group
    std::vector<Projections>* keep_image = nullptr;  ///< one more entry, of the whole batch
  };
  HyBlockImpl::Heads attend(const HyBlockImpl::Rows& rows, const Memory& memory) const;
  /// Image keys and values of the whole batch, as memory keeps them.
  Projections keep(const Projections& image) const;
  /// The same of text, per group.
  std::vector<Projections> keep_text(const Projections& text) const;

 private:
  Projections exchange_text(const Projections& text, const HySamples& group) const;
  nn::FrameRows rows_with_text(int64_t text_rows) const;
  HyBlockImpl::Heads attend_group(const Projections& image, const Projections& text,
                                  const HySamples& group, const Memory& memory) const;
  HyBlockImpl::Heads attend_together(const Projections& image, const Projections& text,
                                     const HySamples& group) const;
  at::Tensor attend_text(const Projections& text, const HySamples& group) const;
  at::Tensor text_to_rows(const at::Tensor& heads, const HySamples& group) const;
};

}  // namespace minwm::models
