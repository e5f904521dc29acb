#pragma once
// The re-render score: is the generated video closest to the world seen along the commanded path,
// or along another one? Works at every picture quality. Spec data-camera-eval 14.1, tiny-world 10.

#include <string>
#include <vector>

#include "minwm/eval/commanded.h"

namespace minwm::eval {

struct RerenderScore {
  double psnr = 0;       ///< dB against the commanded path's render, mean over judged latent frames
  double margin = 0;     ///< dB above the best rival (negative: a rival explains the video better)
  double vs_mirror = 0;  ///< dB above the mirrored path; NaN for a still command
  double best_scale =
      0;  ///< amplitude that fits best: 1 = as commanded, 0 = still, -1 = mirrored; NaN if still
  bool top1 = false;  ///< the commanded path beats every rival
  std::string best_rival;
};

/// The renders of one clip along the commanded path, its rivals (mirror, half, one chunk late,
/// still, three other random paths) and the amplitudes -1 … 1.25. Made once, judges any number of
/// videos; safe to share between threads.
class Rerender {
 public:
  explicit Rerender(const Commanded& clip);
  /// @param frames  uint8 [T, H, W, 3], one per latent frame.
  /// @throws Error if the shape differs from the clip's.
  RerenderScore score(const at::Tensor& frames) const;
  /// The commanded path's judged frames: uint8 [T - given, H, W, 3].
  const at::Tensor& truth() const { return candidates_.front().frames; }

 private:
  struct Candidate {
    std::string name;
    at::Tensor path;    // [T, 4, 4]
    at::Tensor frames;  // uint8 [T - given, H, W, 3]
    double scale;       // amplitude, NaN for paths that are not a scaled command
    bool rival;
  };
  void add(const std::string& name, const at::Tensor& path, double scale, bool rival);

  int64_t given_;
  bool still_;  // nothing is commanded: amplitude and mirror mean nothing
  std::vector<Candidate> candidates_;
};

/// Where a parabola through (x[i - 1 … i + 1], y[…]) around the largest y has its top; the end
/// itself at an end.
double parabola_peak(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace minwm::eval
