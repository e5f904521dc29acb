#include "minwm/eval/following.h"

#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#include <opencv2/core/utility.hpp>

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/eval/video_metrics.h"

namespace minwm::eval {
namespace {

// Change at chunk borders over change inside chunks. Where less than this changes, nothing moves.
double border_ratio(const at::Tensor& video, int64_t chunk_frames) {
  constexpr double kLeastChange = .1;  // grey levels
  const FrameChange change = frame_change(video, chunk_frames);
  return change.inside > kLeastChange ? change.at_borders / change.inside
                                      : std::numeric_limits<double>::quiet_NaN();
}

double ratio(double dot, double norm) {
  return norm > 1e-12 ? dot / norm : std::numeric_limits<double>::quiet_NaN();
}

template <class Get>
Mean mean_over(const std::vector<ClipScores>& clips, const Get& get) {
  std::vector<double> values;
  for (const auto& clip : clips) {
    values.push_back(get(clip));
  }
  return mean_of(values);
}

struct Fraction {
  double above, below;
};

Fraction as_fraction(const ActionCount& count) {
  return {static_cast<double>(count.total_hits()), static_cast<double>(count.total_steps())};
}

// Sum of numerators over sum of denominators, so that clips weigh by how much they move; its
// standard error by leaving out one clip at a time (jackknife).
template <class Get>
Mean pooled_ratio(const std::vector<ClipScores>& clips, const Get& get) {
  Fraction sum{0, 0};
  std::vector<Fraction> parts;
  for (const auto& clip : clips) {
    const Fraction part = get(clip);
    if (part.below > 0) {
      parts.push_back(part);
      sum = {sum.above + part.above, sum.below + part.below};
    }
  }
  std::vector<double> without;
  for (const auto& part : parts) {
    without.push_back(ratio(sum.above - part.above, sum.below - part.below));
  }
  const Mean spread = mean_of(without);  // its error is s / sqrt(n) of the n leave-one-out values
  const int count = static_cast<int>(parts.size());
  return {ratio(sum.above, sum.below), spread.error * (count - 1), count};
}

nlohmann::ordered_json to_json(const Mean& mean) {
  return {{"mean", mean.value}, {"standard_error", mean.error}, {"clips", mean.count}};
}

nlohmann::ordered_json to_json(const Mean& accuracy, const ActionCount& count) {
  nlohmann::ordered_json json = to_json(accuracy);
  json["steps"] = count.total_steps();
  for (size_t key = 0; key < kKeys.size(); ++key) {
    json["keys"][kKeys[key]] = {{"steps", count.steps[key]}, {"hits", count.hits[key]}};
  }
  return json;
}

}  // namespace

Judge::Judge(Commanded clip)
    : clip_(std::move(clip)), truth_(render_truth(clip_)), rerender_(clip_) {
  set_reference(truth_);
}

void Judge::set_reference(const at::Tensor& video) {
  const at::Tensor frames = latent_time_frames(video);
  require(frames.size(0) == clip_.frames(),
          "{}: the reference video has {} latent frames, the path {}", clip_.name, frames.size(0),
          clip_.frames());
  reference_gradient_ = mean_gradient(frames.slice(0, clip_.given));
  reference_borders_ = border_ratio(video, chunk_frames_);
}

void Judge::set_layout(int64_t chunk_frames, int64_t token_pixels) {
  require(chunk_frames >= 1 && token_pixels >= 2, "{}: chunks of {} latents, tokens of {} pixels",
          clip_.name, chunk_frames, token_pixels);
  chunk_frames_ = chunk_frames;
  token_pixels_ = token_pixels;
}

ClipScores Judge::score(const at::Tensor& video) const {
  require(video.sizes() == truth_.sizes() && video.scalar_type() == at::kByte,
          "{}: the video is [{}], expected uint8 [{}]", clip_.name, fmt::join(video.sizes(), ", "),
          fmt::join(truth_.sizes(), ", "));
  const at::Tensor frames = latent_time_frames(video), judged = frames.slice(0, clip_.given);
  ClipScores scores;
  scores.rerender = rerender_.score(frames);
  scores.path = compare_paths(clip_, recover_path(clip_, frames));
  scores.actions = classify_actions(clip_, frames);
  scores.ssim = mean_ssim(judged, rerender_.truth());
  scores.sharpness = ratio(mean_gradient(judged), reference_gradient_);
  scores.flicker = temporal_flickering(video);
  scores.border_flicker = ratio(border_ratio(video, chunk_frames_), reference_borders_);
  scores.tile_grid =
      ratio(tile_grid(judged, token_pixels_), tile_grid(rerender_.truth(), token_pixels_));
  return scores;
}

Mean mean_of(const std::vector<double>& values) {
  Mean mean;
  double sum = 0, squares = 0;
  for (const double value : values) {
    if (!std::isnan(value)) {
      ++mean.count;
      sum += value;
      squares += value * value;
    }
  }
  if (mean.count == 0) {
    mean.value = mean.error = std::numeric_limits<double>::quiet_NaN();
    return mean;
  }
  mean.value = sum / mean.count;
  const double variance = std::max(0.0, squares / mean.count - mean.value * mean.value);
  mean.error = mean.count > 1 ? std::sqrt(variance / (mean.count - 1))
                              : std::numeric_limits<double>::quiet_NaN();
  return mean;
}

RowScores pool(const std::string& name, const std::vector<ClipScores>& clips) {
  RowScores row;
  row.name = name;
  row.clips = static_cast<int>(clips.size());
  row.psnr = mean_over(clips, [](const auto& c) { return c.rerender.psnr; });
  row.ssim = mean_over(clips, [](const auto& c) { return c.ssim; });
  row.sharpness = mean_over(clips, [](const auto& c) { return c.sharpness; });
  row.flicker = mean_over(clips, [](const auto& c) { return c.flicker; });
  row.border_flicker = mean_over(clips, [](const auto& c) { return c.border_flicker; });
  row.tile_grid = mean_over(clips, [](const auto& c) { return c.tile_grid; });
  row.margin = mean_over(clips, [](const auto& c) { return c.rerender.margin; });
  row.top1 = mean_over(clips, [](const auto& c) { return c.rerender.top1 ? 1.0 : 0.0; });
  row.vs_mirror = mean_over(clips, [](const auto& c) { return c.rerender.vs_mirror; });
  row.best_scale = mean_over(clips, [](const auto& c) { return c.rerender.best_scale; });
  row.rotation_error = mean_over(clips, [](const auto& c) { return c.path.rotation_error; });
  row.translation_error = mean_over(clips, [](const auto& c) { return c.path.translation_error; });
  row.ok_share = mean_over(clips, [](const auto& c) { return c.path.ok_share; });
  row.gain_translation = pooled_ratio(clips, [](const auto& c) {
    return Fraction{c.path.translation_dot, c.path.translation_norm};
  });
  row.gain_rotation = pooled_ratio(clips, [](const auto& c) {
    return Fraction{c.path.rotation_dot, c.path.rotation_norm};
  });
  row.accuracy = pooled_ratio(clips, [](const auto& c) { return as_fraction(c.actions.one); });
  row.accuracy3 = pooled_ratio(clips, [](const auto& c) { return as_fraction(c.actions.three); });
  for (const auto& clip : clips) {
    row.one.add(clip.actions.one);
    row.three.add(clip.actions.three);
  }
  return row;
}

void for_each_clip(size_t count, int threads, const std::function<void(size_t)>& body) {
  cv::setNumThreads(1);  // clips are the unit of parallelism
  const int tensor_threads = at::get_num_threads();
  std::atomic<size_t> next = 0;
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    at::set_num_threads(1);  // per thread under OpenMP
    for (size_t i = next++; i < count; i = next++) {
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = failure ? failure : std::current_exception();
        next = count;
      }
    }
  };
  {
    std::vector<std::jthread> workers;
    const size_t extra = std::min(count, static_cast<size_t>(std::max(threads, 1)));
    for (size_t i = 1; i < extra; ++i) {
      workers.emplace_back(work);
    }
    work();
  }
  at::set_num_threads(tensor_threads);
  if (failure) {
    std::rethrow_exception(failure);
  }
}

std::vector<std::unique_ptr<Judge>> make_judges(const std::vector<Commanded>& clips, int threads) {
  std::vector<std::unique_ptr<Judge>> judges(clips.size());
  for_each_clip(clips.size(), threads,
                [&](size_t i) { judges[i] = std::make_unique<Judge>(clips[i]); });
  return judges;
}

std::vector<ClipScores> score_clips(const std::vector<std::unique_ptr<Judge>>& judges,
                                    const std::vector<at::Tensor>& videos, int threads) {
  require(judges.size() == videos.size(), "{} videos for {} clips", videos.size(), judges.size());
  std::vector<ClipScores> scores(judges.size());
  for_each_clip(judges.size(), threads, [&](size_t i) { scores[i] = judges[i]->score(videos[i]); });
  return scores;
}

nlohmann::ordered_json to_json(const RowScores& row) {
  return {{"name", row.name},
          {"clips", row.clips},
          {"psnr", to_json(row.psnr)},
          {"ssim", to_json(row.ssim)},
          {"sharpness", to_json(row.sharpness)},
          {"temporal_flickering", to_json(row.flicker)},
          {"border_flicker", to_json(row.border_flicker)},
          {"tile_grid", to_json(row.tile_grid)},
          {"margin", to_json(row.margin)},
          {"top1", to_json(row.top1)},
          {"vs_mirror", to_json(row.vs_mirror)},
          {"best_scale", to_json(row.best_scale)},
          {"rotation_error_degrees", to_json(row.rotation_error)},
          {"translation_error", to_json(row.translation_error)},
          {"gain_translation", to_json(row.gain_translation)},
          {"gain_rotation", to_json(row.gain_rotation)},
          {"pose_recovered_share", to_json(row.ok_share)},
          {"action_accuracy", to_json(row.accuracy, row.one)},
          {"acc3", to_json(row.accuracy3, row.three)}};
}

nlohmann::ordered_json to_json(const ClipScores& clip) {
  return {{"psnr", clip.rerender.psnr},
          {"ssim", clip.ssim},
          {"sharpness", clip.sharpness},
          {"temporal_flickering", clip.flicker},
          {"border_flicker", clip.border_flicker},
          {"tile_grid", clip.tile_grid},
          {"margin", clip.rerender.margin},
          {"top1", clip.rerender.top1},
          {"best_rival", clip.rerender.best_rival},
          {"vs_mirror", clip.rerender.vs_mirror},
          {"best_scale", clip.rerender.best_scale},
          {"rotation_error_degrees", clip.path.rotation_error},
          {"translation_error", clip.path.translation_error},
          {"gain_translation", ratio(clip.path.translation_dot, clip.path.translation_norm)},
          {"gain_rotation", ratio(clip.path.rotation_dot, clip.path.rotation_norm)},
          {"pose_recovered_share", clip.path.ok_share},
          {"action_accuracy", clip.actions.one.accuracy()},
          {"acc3", clip.actions.three.accuracy()}};
}

}  // namespace minwm::eval
