#include "minwm/stages/camera_gap.h"

#include <algorithm>
#include <cmath>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/noise.h"

namespace minwm::stages {
namespace {

/// Some clips side by side, on the model's device.
struct Judged {
  data::Batch batch;
  at::Tensor counted;                // [B] float64 of 0 and 1
  at::Tensor other_world_to_camera;  // [B, T, 4, 4]
};

Judged collate(const std::vector<GapClip>& clips, size_t first, size_t count,
               const c10::Device& device) {
  std::vector<at::Tensor> latents, text, cameras, others, intrinsics;
  std::vector<double> counted;
  Judged judged;
  for (size_t i = first; i < first + count; ++i) {
    const auto& clip = clips[i].clip;
    latents.push_back(clip.latents);
    text.push_back(clip.text);
    cameras.push_back(clip.world_to_camera);
    others.push_back(clips[i].other_world_to_camera);
    intrinsics.push_back(clip.intrinsics.unsqueeze(0).expand({clip.latents.size(0), 3, 3}));
    judged.batch.global_samples.push_back(clips[i].index);
    counted.push_back(clips[i].counted ? 1 : 0);
  }
  judged.counted = at::tensor(counted, at::kDouble);
  judged.batch.latents = at::stack(latents).to(device);
  judged.batch.conditions.text = at::stack(text).to(device);
  judged.batch.conditions.cameras = {at::stack(cameras).to(device),
                                     at::stack(intrinsics).to(device)};
  judged.other_world_to_camera = at::stack(others).to(device);
  return judged;
}

/// The one-step prediction of x0 for all latents after the first `given`, which are the truth: [B,
/// T, C, h, w].
at::Tensor predict(models::Backbone& model, const data::Batch& batch,
                   const camera::Cameras& cameras, const GapOptions& options, int64_t given) {
  const at::Tensor& truth = batch.latents;
  models::Conditions conditions = batch.conditions;
  conditions.cameras = cameras;
  const at::Tensor noise = sample_noise(truth, batch, {options.seed, 0, 0}, "camera_gap.noise");
  at::Tensor sigma = at::ones({truth.size(0), truth.size(1)}, truth.options());
  models::ForwardInput input;
  if (options.causal) {
    input.chunk_frames = options.chunk_frames;
    input.clean_latents = truth;
  } else if (!model.reads_first_latent()) {
    sigma.narrow(1, 0, given).zero_();
  }
  input.latents = diffusion::add_noise(truth, noise, sigma);
  input.timestep = sigma * 1000;
  // Wrong cameras make wrong actions too.
  input.conditions = models::conditions_for(
      model, conditions, options.first_frame ? truth.narrow(1, 0, 1) : at::Tensor(), truth.size(1));
  at::Tensor x0 = diffusion::predict_x0(input.latents, model.forward(input), sigma);
  x0.narrow(1, 0, given).copy_(truth.narrow(1, 0, given));
  return x0;
}

}  // namespace

GapErrors camera_gap_errors(models::Backbone& model, models::Codec& codec,
                            const std::vector<GapClip>& clips, const GapOptions& options) {
  at::NoGradGuard no_grad;
  const int64_t given = options.causal ? options.chunk_frames : 1;
  const c10::Device device = model.parameters().front().device();
  GapErrors errors;
  const auto batch = static_cast<size_t>(options.batch);
  for (size_t first = 0; first < clips.size(); first += batch) {
    const Judged judged = collate(clips, first, std::min(batch, clips.size() - first), device);
    const at::Tensor& truth = judged.batch.latents;
    const int64_t frames = truth.size(1);
    require(frames > given,
            "camera gap: clips of {} latents leave none to judge after the first {}", frames,
            given);
    require(!options.causal || frames % options.chunk_frames == 0,
            "camera gap: {} latents are not a multiple of the chunk of {}", frames,
            options.chunk_frames);
    // Latent k shows frames 4 k - 3 … 4 k.
    const int64_t first_pixel_frame = codec.temporal_factor() * (given - 1) + 1;
    auto shown = [&](const at::Tensor& latents) {
      return codec.decode(latents.to(at::kCPU)).slice(1, first_pixel_frame);
    };
    const at::Tensor pixels = shown(truth);
    auto squared_error = [&](const at::Tensor& latents) {
      const at::Tensor errors_of =
          (shown(latents) - pixels).square().flatten(1).sum(1, false, at::kDouble);
      return (errors_of * judged.counted).sum().item<double>();
    };
    const auto& cameras = judged.batch.conditions.cameras;
    const camera::Cameras others{judged.other_world_to_camera, cameras.intrinsics};
    errors.right += squared_error(predict(model, judged.batch, cameras, options, given));
    if (model.reads_cameras()) {
      errors.wrong += squared_error(predict(model, judged.batch, others, options, given));
    }
    at::Tensor copied = truth.clone();
    copied.narrow(1, 1, frames - 1)
        .copy_(truth.narrow(1, 1, 1).expand_as(truth.narrow(1, 1, frames - 1)));
    errors.copy += squared_error(copied);
    errors.values += static_cast<double>(pixels[0].numel()) * judged.counted.sum().item<double>();
  }
  return errors;
}

CameraGap camera_gap(const GapErrors& errors) {
  // Pixels span -1 … 1: the peak is 2. No error at all is shown as 100 dB rather than as infinity.
  constexpr double kPeakSquared = 4, kNoError = 1e-10;
  auto decibel = [&](double sum) {
    return 10 * std::log10(kPeakSquared / std::max(sum / errors.values, kPeakSquared * kNoError));
  };
  require(errors.values > 0, "camera gap: no clip was judged");
  CameraGap result;
  result.right = decibel(errors.right);
  result.wrong = decibel(errors.wrong);
  result.copy = decibel(errors.copy);
  result.gap = result.right - result.wrong;
  return result;
}

}  // namespace minwm::stages
