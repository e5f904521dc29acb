#include "clip_generator.h"

#include <limits>

#include "minwm/camera/pose_string.h"
#include "minwm/core/progress.h"
#include "minwm/data/video.h"
#include "walks.h"

namespace minwm::apps {

ClipGenerator::ClipGenerator(const GeneratorOptions& options, stream::LoadedModel loaded,
                             const std::vector<eval::Commanded>& clips)
    : options_(options), loaded_(std::move(loaded)), clips_(clips) {}

Videos ClipGenerator::run(const std::vector<at::Tensor>& truths,
                          const std::vector<at::Tensor>& wrong_paths) {
  Videos videos;
  Progress progress("generate", 2 * static_cast<int64_t>(clips_.size()), "clips");
  for (size_t first = 0; first < clips_.size(); first += static_cast<size_t>(options_.batch)) {
    const size_t end = std::min(clips_.size(), first + static_cast<size_t>(options_.batch));
    std::vector<at::Tensor> truth, text, right, wrong;
    for (size_t i = first; i < end; ++i) {
      const auto& style = clips_[i].style;
      truth.push_back(data::to_pixels(truths[i], style.height, style.width));
      text.push_back(data::caption_embedding(data::caption(*clips_[i].world)));
      right.push_back(clips_[i].camera_to_world);
      wrong.push_back(wrong_paths[i]);
    }
    const at::Tensor latents = loaded_.codec->encode(at::stack(truth));
    append(videos.codec, latents);
    for (size_t i = first; i < end; ++i) {
      held_out_.push_back(held_out_clip(i, latents[static_cast<int64_t>(i - first)],
                                        text[i - first], wrong_paths[i]));
    }
    const at::Tensor given = latents.narrow(1, 0, options_.given);
    append(videos.model, generate(at::stack(text), given, at::stack(right), first));
    progress.update(static_cast<int64_t>(first + end));  // half of this batch's work
    append(videos.wrong, generate(at::stack(text), given, at::stack(wrong), first));
    progress.update(2 * static_cast<int64_t>(end));
  }
  progress.finish();
  for (const auto& video : videos.codec) {
    videos.still.push_back(video.slice(0, 0, 1).expand_as(video).contiguous());
  }
  return videos;
}

double ClipGenerator::camera_gap(size_t count) {
  if (!loaded_.model->reads_cameras()) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  stages::GapOptions gap;
  gap.causal = loaded_.mode == stream::Mode::kStream;
  gap.chunk_frames = loaded_.stream.chunk_frames;
  gap.seed = options_.seed;
  gap.first_frame = loaded_.info.first_frame > 0;
  const int64_t frames = clips_.front().frames();
  if (gap.causal && (frames % gap.chunk_frames != 0 || frames == gap.chunk_frames)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const std::vector<stages::GapClip> judged(held_out_.begin(),
                                            held_out_.begin() + static_cast<std::ptrdiff_t>(count));
  return stages::camera_gap(stages::camera_gap_errors(*loaded_.model, *loaded_.codec, judged, gap))
      .gap;
}

stages::GapClip ClipGenerator::held_out_clip(size_t i, const at::Tensor& latents,
                                             const at::Tensor& text,
                                             const at::Tensor& wrong) const {
  const auto& sampler = loaded_.stream;
  const auto right = camera::make_cameras(clips_[i].camera_to_world, sampler.fx, sampler.fy);
  stages::GapClip judged;
  judged.clip.latents = latents;
  judged.clip.text = text;
  judged.clip.world_to_camera = right.world_to_camera[0];
  judged.clip.intrinsics = right.intrinsics[0][0];
  judged.other_world_to_camera =
      camera::make_cameras(wrong, sampler.fx, sampler.fy).world_to_camera[0];
  judged.index = static_cast<int64_t>(i);
  return judged;
}

void ClipGenerator::append(std::vector<at::Tensor>& videos, const at::Tensor& latents) const {
  for (const auto& video : to_videos(loaded_.codec->decode(latents.to(at::kCPU)))) {
    videos.push_back(video);
  }
}

at::Tensor ClipGenerator::generate(const at::Tensor& text, const at::Tensor& given,
                                   const at::Tensor& poses, size_t first) const {
  stream::GenerateRequest request;
  request.mode = loaded_.mode;
  request.conditions.text = text;
  request.given_latents = given;
  request.camera_to_world = poses;
  request.height = loaded_.info.latent_height;
  request.width = loaded_.info.latent_width;
  request.stream = loaded_.stream;
  // The noise is addressed by the place in the batch: another batch needs another seed.
  request.stream.seed = options_.seed + (static_cast<uint64_t>(first) << 32);
  return stream::generate_latents(loaded_.model, request);
}

}  // namespace minwm::apps
