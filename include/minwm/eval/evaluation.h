#pragma once
// What `minwm evaluate` measured, and how it is told: as JSON, as a page, as a few lines on the
// terminal.

#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "minwm/eval/drift.h"
#include "minwm/eval/following.h"
#include "minwm/eval/report.h"
#include "minwm/eval/training_log.h"

namespace minwm::eval {

/// One kind of video, judged on every clip.
struct EvaluationRow {
  std::string key;   ///< "truth", "still", "model", "wrong"
  std::string name;  ///< as the table shows it
  std::vector<ClipScores> clips;
  RowScores pooled;
};
EvaluationRow make_row(const std::string& key, const std::string& name,
                       std::vector<ClipScores> clips);

/// A real video through the codec.
struct RealClip {
  std::string name;
  double psnr = 0;  ///< dB against the source frames at the codec's size
  Sheet sheet;
};

/// How long one viewer waits: batch 1, after a warm-up, medians. Text and first frame are encoded
/// already.
struct Latency {
  /// Request to first decoded frames. Streaming: a new cache, noise, all steps of the first chunk,
  /// its decoding. Bidirectional: all steps of the whole clip, its decoding.
  double first_frame_seconds = std::numeric_limits<double>::quiet_NaN();
  /// A later chunk, with a full window; bidirectional: the whole clip again.
  double chunk_seconds = std::numeric_limits<double>::quiet_NaN();
  double frames_per_second = std::numeric_limits<double>::quiet_NaN();  ///< video frames
  int64_t steps = 0;         ///< network passes per chunk (of the first one) or clip
  int64_t first_frames = 0;  ///< video frames that are there then
  int64_t threads = 0;
  std::string device;
  bool measured() const { return steps > 0; }
};

struct Evaluation {
  std::string checkpoint, model, stage,
      sampler;  ///< where, preset, stage, "4 renoise steps, streamed"
  int64_t step = 0;
  std::vector<Commanded> clips;
  std::vector<EvaluationRow> rows;    ///< "truth", "still", "model" and "wrong" at least
  std::vector<TrainingLog> training;  ///< in the order of the stages; may be empty
  std::vector<Sheet> sheets;
  std::vector<RealClip> real;
  std::string options;  ///< the resolved INI
  /// Measured on the evaluation's own clips, in dB; NaN where it was not.
  double camera_gap = std::numeric_limits<double>::quiet_NaN();
  double seconds = 0;        ///< that the evaluation took
  int64_t chunk_frames = 0;  ///< latents generated together; 0 = all
  Latency latency;
  Drift drift;  ///< of a long stream, if one was asked for

  /// @throws Error if there is no such row.
  const EvaluationRow& row(const std::string& key) const;
};

/// A number that decides, with the range it should reach (release gates of data-camera-eval 14.6;
/// NaN = no bound).
struct Headline {
  std::string key, label, unit, meaning;
  double value, error, low, high;
  std::string text;  ///< the value as shown
  bool has_gate() const;
  bool reached() const;     ///< inside the bounds; false if the value is undefined
  std::string aim() const;  ///< "aim: 0.8 … 1.2"; empty without a gate
};
std::vector<Headline> headlines(const Evaluation& evaluation);

/// Every row and clip, the headlines with their gates, the last training evaluation, the options.
nlohmann::ordered_json to_json(const Evaluation& evaluation);
/// The report page.
std::string to_html(const Evaluation& evaluation);
/// The headline numbers of every row as a table of plain text.
std::string to_text(const Evaluation& evaluation);

/// The measured numbers in plain sentences: does the camera move the picture, what is reached, what
/// is not.
std::vector<std::string> in_words(const Evaluation& evaluation);
std::string in_words(const Latency& latency);

}  // namespace minwm::eval
