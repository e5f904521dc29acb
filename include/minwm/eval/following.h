#pragma once
// Everything measured about how a video follows its camera: one clip, and pooled over many.
//
//   std::vector<std::unique_ptr<Judge>> judges = make_judges(clips, threads);
//   RowScores model = score_row("model", judges, videos, threads);   // videos[i]: uint8 [F, H, W,
//   3]

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "minwm/eval/action_accuracy.h"
#include "minwm/eval/commanded.h"
#include "minwm/eval/pose_recovery.h"
#include "minwm/eval/rerender.h"

namespace minwm::eval {

struct ClipScores {
  RerenderScore rerender;
  PathAgreement path;
  ActionScore actions;
  double ssim = 0;       ///< against the render, judged latent frames
  double sharpness = 0;  ///< mean gradient relative to the reference
  double flicker = 0;    ///< VBench's temporal flickering over all video frames
  /// Change where chunks begin over change inside them, relative to the reference's: 1 = as smooth.
  /// NaN where nothing moves.
  double border_flicker = std::numeric_limits<double>::quiet_NaN();
  /// Token grid (video_metrics.h) over that of the exact video, which a horizon on a border raises
  /// above 1 too: 1 = none to be seen.
  double tile_grid = std::numeric_limits<double>::quiet_NaN();
};

/// Judges videos of one clip; renders the truth and its rivals once. Shareable between threads.
class Judge {
 public:
  explicit Judge(Commanded clip);
  const Commanded& clip() const { return clip_; }
  /// The exact video: uint8 [F, H, W, 3].
  const at::Tensor& truth() const { return truth_; }
  /// The video that sharpness and flicker are relative to (the truth through the codec); until
  /// set, the truth. Set before scoring.
  void set_reference(const at::Tensor& video);
  /// What the judged model generates at once and what its tokens cover: where flicker and tiles are
  /// looked for. Set before the reference.
  void set_layout(int64_t chunk_frames, int64_t token_pixels);
  /// @param video  uint8 [F, H, W, 3], F = 1 + 4 (T - 1). @throws Error naming the clip if the
  /// shape differs.
  ClipScores score(const at::Tensor& video) const;

 private:
  Commanded clip_;
  at::Tensor truth_;
  Rerender rerender_;
  int64_t chunk_frames_ = 4, token_pixels_ = 16;
  double reference_gradient_ = 0, reference_borders_ = 0;
};

/// Mean over clips and its standard error; clips where the value is undefined (NaN) do not count.
struct Mean {
  double value = 0, error = 0;
  int count = 0;
};
Mean mean_of(const std::vector<double>& values);

/// One row of the table: many clips pooled.
struct RowScores {
  std::string name;
  int clips = 0;
  Mean psnr, ssim, sharpness, flicker, border_flicker, tile_grid, margin, top1, vs_mirror,
      best_scale;
  Mean rotation_error, translation_error, ok_share;
  /// Pooled over clips, which weigh by how much is commanded; NaN if none moves (turns).
  Mean gain_translation, gain_rotation, accuracy, accuracy3;
  ActionCount one, three;  ///< the counts behind accuracy and accuracy3, by key
};

RowScores pool(const std::string& name, const std::vector<ClipScores>& clips);

/// Runs body(0 … count - 1) on `threads` threads; the first exception is rethrown.
void for_each_clip(size_t count, int threads, const std::function<void(size_t)>& body);

std::vector<std::unique_ptr<Judge>> make_judges(const std::vector<Commanded>& clips, int threads);
std::vector<ClipScores> score_clips(const std::vector<std::unique_ptr<Judge>>& judges,
                                    const std::vector<at::Tensor>& videos, int threads);

/// Every number of a row or a clip under its name; undefined ones are null.
nlohmann::ordered_json to_json(const RowScores& row);
nlohmann::ordered_json to_json(const ClipScores& clip);

}  // namespace minwm::eval
