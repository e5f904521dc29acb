#pragma once
// The videos that `minwm evaluate` judges: every clip as the model makes it, with its own cameras
// and with another clip's.

#include <vector>

#include "minwm/eval/commanded.h"
#include "minwm/stages/camera_gap.h"
#include "minwm/stream/loaded_model.h"

namespace minwm::apps {

/// One list per row of the table, each with a uint8 [F, H, W, 3] video per clip.
struct Videos {
  std::vector<at::Tensor> codec, still, model, wrong;
};

struct GeneratorOptions {
  int64_t batch = 32;  ///< clips side by side
  int64_t given = 1;   ///< latents handed to the model
  uint64_t seed = 0;
};

class ClipGenerator {
 public:
  /// `clips` must outlive the generator.
  ClipGenerator(const GeneratorOptions& options, stream::LoadedModel loaded,
                const std::vector<eval::Commanded>& clips);

  /// @param truths  uint8 [F, H, W, 3] per clip.
  /// @param wrong_paths  [T, 4, 4] per clip: what the model is given instead for the row "wrong".
  Videos run(const std::vector<at::Tensor>& truths, const std::vector<at::Tensor>& wrong_paths);

  /// After run(): the camera gap in dB on the first `count` clips; NaN if their length is not one
  /// the model was made for, or if it reads no cameras.
  double camera_gap(size_t count);

 private:
  stages::GapClip held_out_clip(size_t i, const at::Tensor& latents, const at::Tensor& text,
                                const at::Tensor& wrong) const;
  void append(std::vector<at::Tensor>& videos, const at::Tensor& latents) const;
  at::Tensor generate(const at::Tensor& text, const at::Tensor& given, const at::Tensor& poses,
                      size_t first) const;

  GeneratorOptions options_;
  stream::LoadedModel loaded_;
  const std::vector<eval::Commanded>& clips_;
  std::vector<stages::GapClip> held_out_;
};

}  // namespace minwm::apps
