#include "minwm/eval/evaluation.h"

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"

namespace minwm::eval {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kPoseBelievable =
    .8;  // share of recovered poses below which translation gain says nothing

Headline headline(const std::string& key, const std::string& label, const Mean& mean, double low,
                  double high, const std::string& meaning, int digits, const std::string& unit = "",
                  bool sign = false) {
  Headline h{key, label, unit, meaning, mean.value, mean.error, low, high, "–"};
  if (!std::isnan(mean.value)) {
    const double shown =
        std::abs(mean.value) < .5 * std::pow(10, -digits) ? 0 : mean.value;  // never -0.00
    h.text = sign ? fmt::format("{:+.{}f}{}", shown, digits, unit)
                  : fmt::format("{:.{}f}{}", shown, digits, unit);
  }
  return h;
}

// As measured here, else as training measured it last; NaN if neither did.
double camera_gap(const Evaluation& evaluation) {
  if (!std::isnan(evaluation.camera_gap) || evaluation.training.empty() ||
      evaluation.training.back().gap.y.empty()) {
    return evaluation.camera_gap;
  }
  return evaluation.training.back().gap.y.back();
}

nlohmann::ordered_json to_json(const Headline& h) {
  nlohmann::ordered_json json = {
      {"value", h.value}, {"standard_error", h.error}, {"meaning", h.meaning}};
  if (h.has_gate()) {
    json["gate"] = {{"at_least", h.low}, {"at_most", h.high}, {"reached", h.reached()}};
  }
  return json;
}

nlohmann::ordered_json to_json(const Latency& latency) {
  return {{"first_frame_seconds", latency.first_frame_seconds},
          {"first_frames", latency.first_frames},
          {"chunk_seconds", latency.chunk_seconds},
          {"frames_per_second", latency.frames_per_second},
          {"steps", latency.steps},
          {"batch", 1},
          {"threads", latency.threads},
          {"device", latency.device}};
}

nlohmann::ordered_json to_json(const TrainingLog& log) {
  nlohmann::ordered_json json = {
      {"name", log.name}, {"steps", log.steps}, {"seconds", log.seconds}};
  if (!log.loss.y.empty()) {
    const Series tail = averaged(log.loss, 20);
    json["last_loss"] = tail.y.empty() ? kNaN : tail.y.back();
  }
  const auto last = [&](const char* key, const Series& series) {
    if (!series.y.empty()) {
      json[key] = series.y.back();
    }
  };
  last("camera_gap", log.gap);
  last("gap_right", log.right);
  last("gap_wrong", log.wrong);
  json["gap_copy"] = log.copy;
  return json;
}

}  // namespace

EvaluationRow make_row(const std::string& key, const std::string& name,
                       std::vector<ClipScores> clips) {
  EvaluationRow row{key, name, std::move(clips), {}};
  row.pooled = pool(name, row.clips);
  return row;
}

const EvaluationRow& Evaluation::row(const std::string& key) const {
  for (const auto& candidate : rows) {
    if (candidate.key == key) {
      return candidate;
    }
  }
  fail("evaluation: there is no row '{}'", key);
}

bool Headline::has_gate() const {
  return !std::isnan(low) || !std::isnan(high);
}
bool Headline::reached() const {
  return !std::isnan(value) && !(value < low) && !(value > high);  // a NaN bound never refuses
}
std::string Headline::aim() const {
  if (!has_gate()) {
    return "";
  }
  return std::isnan(high)  ? fmt::format("aim: at least {:g}{}", low, unit)
         : std::isnan(low) ? fmt::format("aim: at most {:g}{}", high, unit)
                           : fmt::format("aim: {:g} to {:g}{}", low, high, unit);
}

std::vector<Headline> headlines(const Evaluation& evaluation) {
  const RowScores& model = evaluation.row("model").pooled;
  const RowScores& wrong = evaluation.row("wrong").pooled;
  const bool believable = model.ok_share.value >= kPoseBelievable;
  return {headline("camera_gap", "Camera gap", {camera_gap(evaluation), kNaN, 1}, 3, kNaN,
                   "one-step prediction: better with the right camera than with another clip's", 2,
                   " dB"),
          headline("best_scale", "Best scale", model.best_scale, .8, 1.2,
                   "amplitude of the commanded path that explains the video best", 2),
          headline("vs_mirror", "Against the mirror", model.vs_mirror, 2.5, kNaN,
                   "closer to the commanded path than to its mirror image", 1, " dB", true),
          headline("acc3", "Right key", model.accuracy3, .6, kNaN,
                   "picture motion over three latents names the commanded key", 2),
          headline("top1", "First of the rivals", model.top1, .8, kNaN,
                   "clips whose commanded path beats its 7 rivals; chance 0.125", 2),
          headline("gain_rotation", "Gain of turns", model.gain_rotation, .8, 1.2,
                   "recovered turn over commanded turn", 2),
          believable
              ? headline("gain_translation", "Gain of moves", model.gain_translation, .8, 1.2,
                         "recovered move over commanded move", 2)
              : headline("gain_translation", "Gain of moves", model.gain_translation, kNaN, kNaN,
                         fmt::format("not judged: only {:.0f} % of poses could be recovered",
                                     100 * model.ok_share.value),
                         2),
          headline("rotation_error", "Rotation error", model.rotation_error, kNaN, kNaN,
                   "mean over frames, lower is better", 1, "°"),
          headline("wrong_best_scale", "Wrong cameras: scale", wrong.best_scale, kNaN, .2,
                   "the same model steered by other clips' cameras must not follow this path", 2),
          headline("wrong_top1", "Wrong cameras: first", wrong.top1, kNaN, .2,
                   "and must not beat the rivals; chance 0.125", 2)};
}

nlohmann::ordered_json to_json(const Evaluation& evaluation) {
  nlohmann::ordered_json json = {
      {"format", "minwm-evaluation"},        {"version", 1},
      {"checkpoint", evaluation.checkpoint}, {"model", evaluation.model},
      {"stage", evaluation.stage},           {"step", evaluation.step},
      {"sampler", evaluation.sampler},       {"chunk_frames", evaluation.chunk_frames},
      {"seconds", evaluation.seconds}};
  if (evaluation.latency.measured()) {
    json["latency"] = to_json(evaluation.latency);
  }
  if (evaluation.drift.measured()) {
    json["long"] = to_json(evaluation.drift);
  }
  for (const auto& h : headlines(evaluation)) {
    json["headlines"][h.key] = to_json(h);
  }
  for (const auto& log : evaluation.training) {
    json["training"].push_back(to_json(log));
  }
  for (const auto& row : evaluation.rows) {
    json["rows"][row.key] = to_json(row.pooled);
  }
  for (size_t i = 0; i < evaluation.clips.size(); ++i) {
    const Commanded& clip = evaluation.clips[i];
    nlohmann::ordered_json entry = {{"name", clip.name},
                                    {"world", clip.world_seed},
                                    {"trajectory", clip.trajectory},
                                    {"given", clip.given}};
    for (const auto& row : evaluation.rows) {
      entry["rows"][row.key] = to_json(row.clips.at(i));
    }
    json["clips"].push_back(entry);
  }
  for (const auto& clip : evaluation.real) {
    json["real_clips"].push_back({{"name", clip.name}, {"codec_psnr", clip.psnr}});
  }
  json["options"] = evaluation.options;
  return json;
}

std::string to_text(const Evaluation& evaluation) {
  std::string text =
      fmt::format("{:<32} {:>9} {:>9} {:>6} {:>6} {:>7} {:>7} {:>7} {:>6}\n", "", "bestScale",
                  "vsMirror", "top1", "acc3", "gain T", "gain R", "RotErr", "PSNR");
  const auto cell = [](double value, int width, int digits, bool sign = false) {
    return std::isnan(value) ? fmt::format(" {:>{}}", "-", width)
           : sign            ? fmt::format(" {:>+{}.{}f}", value, width, digits)
                             : fmt::format(" {:>{}.{}f}", value, width, digits);
  };
  for (const auto& row : evaluation.rows) {
    const RowScores& p = row.pooled;
    text += fmt::format("{:<32}", row.name) + cell(p.best_scale.value, 9, 2) +
            cell(p.vs_mirror.value, 9, 1, true) + cell(p.top1.value, 6, 2) +
            cell(p.accuracy3.value, 6, 2) + cell(p.gain_translation.value, 7, 2) +
            cell(p.gain_rotation.value, 7, 2) + cell(p.rotation_error.value, 7, 1) +
            cell(p.psnr.value, 6, 1) + "\n";
  }
  if (const double gap = camera_gap(evaluation); !std::isnan(gap)) {
    text += fmt::format("camera gap {:.2f} dB\n", gap);
  }
  if (evaluation.latency.measured()) {
    text += in_words(evaluation.latency) + "\n";
  }
  return text + (evaluation.drift.measured() ? in_words(evaluation.drift) + "\n" : "");
}

}  // namespace minwm::eval
