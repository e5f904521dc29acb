// The measured numbers as sentences.

#include <algorithm>
#include <cmath>

#include "minwm/eval/evaluation.h"

namespace minwm::eval {
namespace {

constexpr double kRise = .05;  // dB between two evaluations that count as still rising

// -0.00 would be shown otherwise.
double without_sign_of_zero(double value) {
  return std::abs(value) < .005 ? 0 : value;
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string percent(double share) {
  return fmt::format("{:.0f} %", 100 * share);
}

// Above zero by two standard errors.
bool clearly_above(double value, double error, double bound) {
  return value - 2 * error > bound;
}

std::string does_it_follow(const Evaluation& evaluation) {
  const RowScores &model = evaluation.row("model").pooled, &wrong = evaluation.row("wrong").pooled;
  const double difference = model.best_scale.value - wrong.best_scale.value;
  const double error = std::hypot(model.best_scale.error, wrong.best_scale.error);
  const bool follows = clearly_above(model.vs_mirror.value, model.vs_mirror.error, 0) &&
                       clearly_above(difference, error, 0);
  return fmt::format(
      "{} With the commanded cameras the videos fit the commanded path best at {:.2f} of its "
      "amplitude (0 would be "
      "standing still, 1 the full motion) and are {:+.1f} dB closer to that path than to its "
      "mirror image. The same model "
      "given the cameras of other clips gets {:.2f} and {:+.1f} dB on the same yardstick.",
      follows ? "Yes: the camera input moves the picture."
              : "Not measurably: these videos do not show that the camera input moves the picture.",
      model.best_scale.value, model.vs_mirror.value, wrong.best_scale.value, wrong.vs_mirror.value);
}

std::string against_the_bounds(const Evaluation& evaluation) {
  const RowScores &model = evaluation.row("model").pooled, &truth = evaluation.row("truth").pooled,
                  &still = evaluation.row("still").pooled;
  return fmt::format(
      "For scale: the exact video, only passed through the codec, reaches PSNR {:.1f} dB, {} of "
      "clips first among their "
      "rivals and {} of keys recognised; a frozen first frame gets {:.1f} dB, {} and {}. The model "
      "has {:.1f} dB, {} and "
      "{}, with {:.2f} of the codec's sharpness.",
      truth.psnr.value, percent(truth.top1.value), percent(truth.accuracy3.value), still.psnr.value,
      percent(still.top1.value), percent(still.accuracy3.value), model.psnr.value,
      percent(model.top1.value), percent(model.accuracy3.value), model.sharpness.value);
}

std::string what_training_bought(const Evaluation& evaluation) {
  double seconds = 0;
  std::vector<std::string> stages;
  for (const auto& log : evaluation.training) {
    seconds += log.seconds;
    stages.push_back(fmt::format("{} steps of {}", log.steps, log.name));
  }
  std::string text =
      fmt::format("What this much training buys: {}{}.", joined(stages),
                  seconds > 0 ? fmt::format(", {:.1f} minutes in all", seconds / 60) : "");
  for (const auto& log : evaluation.training) {
    if (log.gap.y.size() > 1) {
      const bool rising = log.gap.y.back() > log.gap.y[log.gap.y.size() - 2] + kRise;
      text += fmt::format(" The camera gap went from {:.2f} to {:.2f} dB during {}{}.",
                          without_sign_of_zero(log.gap.y.front()),
                          without_sign_of_zero(log.gap.y.back()), log.name,
                          rising ? " and was still rising at its end" : "");
    }
  }
  return text;
}

std::string reached_and_missing(const Evaluation& evaluation) {
  std::vector<std::string> reached, missing;
  for (const auto& h : headlines(evaluation)) {
    if (h.has_gate() && !std::isnan(h.value)) {
      (h.reached() ? reached : missing).push_back(fmt::format("{} {}", h.label, h.text));
    }
  }
  if (missing.empty()) {
    return "Every release gate is reached.";
  }
  return fmt::format(
      "Of the release gates it reaches: {}. It misses: {}. The gates are meant for a released "
      "model; a "
      "model trained for minutes is not expected to pass them all.",
      reached.empty() ? "none" : joined(reached), joined(missing));
}

std::string keys_in_words(const Evaluation& evaluation) {
  const ActionCount& count = evaluation.row("model").pooled.three;
  std::vector<std::string> strong, weak;
  for (size_t key = 0; key < kKeys.size(); ++key) {
    if (count.steps[key] >= 3) {
      const double share = static_cast<double>(count.hits[key]) / count.steps[key];
      (share >= .5 ? strong : weak).push_back(fmt::format("{} {}", kKeys[key], percent(share)));
    }
  }
  if (strong.empty() && weak.empty()) {
    return "No key was held for three latents in these clips.";
  }
  return fmt::format(
      "Keys recognised in the picture in at least half of their steps: {}; in fewer: {}. Turns "
      "that fall "
      "short are often called strafing: in a blurred picture both look alike near the horizon.",
      strong.empty() ? "none" : joined(strong), weak.empty() ? "none" : joined(weak));
}

}  // namespace

std::string in_words(const Latency& latency) {
  return fmt::format(
      "First frame after {:.3f} s ({} steps, {} video frames at once), then {:.0f} frames per "
      "second: one clip at a time on {} with {} thread{}.",
      latency.first_frame_seconds, latency.steps, latency.first_frames, latency.frames_per_second,
      latency.device, latency.threads, latency.threads == 1 ? "" : "s");
}

std::vector<std::string> in_words(const Evaluation& evaluation) {
  std::vector<std::string> words = {does_it_follow(evaluation), against_the_bounds(evaluation)};
  if (!evaluation.training.empty()) {
    words.push_back(what_training_bought(evaluation));
  }
  words.push_back(keys_in_words(evaluation));
  words.push_back(reached_and_missing(evaluation));
  return words;
}

}  // namespace minwm::eval
