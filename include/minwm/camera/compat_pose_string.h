#pragma once
// The published programs' own pose string parsers, good and bad habits included, to read their data
// sets exactly as they do. Our own input goes through pose_string.h. Spec
// data-camera-eval 2.2, 2.3.

#include <string>
#include <vector>

#include "minwm/camera/pose_string.h"

namespace minwm::camera {

/// The two inference programs that read "key*count".
enum class StarProgram {
  kWan,  ///< w s a d u dn j l i k
  kHy,   ///< also left right up down (turns); u and dn count frames but do not move
};

/// Pieces `[a-z]+\*[0-9]+` split at `,`, nothing else. @throws Error naming the piece.
std::vector<Motion> parse_star_string(const std::string& text, StarProgram program);

/// The three programs that read "action-duration".
enum class DashProgram {
  kWorldPlay,  ///< the generator of the training videos
  /// The Wan line's data set builder: ignores what follows a second `-`, and an unknown action
  /// that is not repeated once.
  kWanLmdb,
  kHyPreencoder,  ///< the HY line's data set builder
};

/// Pieces `action-duration` split at `,`; empty pieces are skipped, durations are Python floats cut
/// to whole numbers. @throws Error naming the piece.
std::vector<Motion> parse_dash_string(const std::string& text, DashProgram program);

/// What the data set builders append to a video folder's name: `right-8, a-11` -> `right8a11`.
std::string directory_suffix(const std::string& text, DashProgram program);

}  // namespace minwm::camera
