#include "minwm/eval/run_comparison.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"

namespace minwm::eval {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTolerance = .05;
constexpr double kGapNoise = .15;  // dB; differences below it mean nothing (tiny-world)
constexpr int kPlotPoints = 160;

// Mean around `step` over points up to `end`, or the nearest point where none lies in the window.
double around(const Series& series, double step, double half_width, double end) {
  double sum = 0, count = 0, nearest = kNaN, distance = 1e300;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!std::isfinite(series.y[i]) || series.x[i] > end) {
      continue;
    }
    const double away = std::abs(series.x[i] - step);
    if (away <= half_width) {
      sum += series.y[i];
      ++count;
    }
    if (away < distance) {
      distance = away;
      nearest = series.y[i];
    }
  }
  return count > 0 ? sum / count : nearest;
}

// The last value at or before `step`.
double last_until(const Series& series, double step) {
  double value = kNaN;
  for (size_t i = 0; i < series.x.size() && series.x[i] <= step; ++i) {
    value = series.y[i];
  }
  return value;
}

double relative(double value, double reference) {
  return (value - reference) / std::max(std::abs(reference), 1e-12);
}

std::string shown(double value) {
  return std::isnan(value) ? "-" : fmt::format("{:.4g}", value);
}

void judge(RunComparison& comparison) {
  const auto& end = comparison.marks.back();
  const auto say = [&](const char* where, const char* what, double a, double b) {
    comparison.verdict = fmt::format("{} the reference: {} {:.3g} vs {:.3g} at step {}", where,
                                     what, a, b, end.step);
  };
  const double loss = relative(end.loss, end.reference_loss);
  const double gap = end.gap - end.reference_gap;  // NaN where not measured: says nothing
  if (!std::isfinite(end.loss) || loss > kTolerance) {
    comparison.behind = true;
    say("behind", "loss", end.loss, end.reference_loss);
  } else if (gap < -std::max(kTolerance * std::abs(end.reference_gap), kGapNoise)) {
    comparison.behind = true;
    say("behind", "camera gap (dB)", end.gap, end.reference_gap);
  } else if (loss < -kTolerance) {
    say("ahead of", "loss", end.loss, end.reference_loss);
  } else {
    comparison.verdict = "within 5 % of the reference";
  }
}

}  // namespace

RunComparison compare(const TrainingLog& run, const TrainingLog& reference) {
  RunComparison comparison;
  comparison.steps = run.steps;
  comparison.reference_steps = reference.steps;
  const double common = static_cast<double>(std::min(run.steps, reference.steps));
  for (const auto* log : {&run, &reference}) {
    require(!log->loss.x.empty() && log->loss.x.front() <= common,
            "{}: has no loss at steps up to {}, nothing can be compared", log->name, common);
  }
  // A tenth of the steps; more of a short run, whose losses are few and noisy.
  const double half_width = std::max(.05 * common, std::min(.2 * common, 10.0));
  for (const double share : {.25, .5, .75, 1.}) {
    const double step = std::max(std::round(share * common), 1.0);
    comparison.marks.push_back({static_cast<int64_t>(step),
                                around(run.loss, step, half_width, common),
                                around(reference.loss, step, half_width, common),
                                around(run.grad_norm, step, half_width, common),
                                around(reference.grad_norm, step, half_width, common),
                                last_until(run.gap, step), last_until(reference.gap, step)});
  }
  judge(comparison);
  return comparison;
}

std::string to_text(const RunComparison& comparison) {
  std::string text = fmt::format("{:>8} | {:^28} | {:^28} | {:^18}\n{:>8} |", "", "loss",
                                 "grad_norm", "camera gap, dB", "step");
  text += fmt::format(" {0:>8} {1:>10} {2:>8} | {0:>8} {1:>10} {2:>8} | {0:>7} {1:>10}\n", "run",
                      "reference", "ratio");
  for (const auto& m : comparison.marks) {
    text += fmt::format("{:>8} | {:>8} {:>10} {:>8} | {:>8} {:>10} {:>8} | {:>7} {:>10}\n", m.step,
                        shown(m.loss), shown(m.reference_loss), shown(m.loss / m.reference_loss),
                        shown(m.grad_norm), shown(m.reference_grad_norm),
                        shown(m.grad_norm / m.reference_grad_norm), shown(m.gap),
                        shown(m.reference_gap));
  }
  if (comparison.steps != comparison.reference_steps) {
    text += fmt::format("the run has {} steps, the reference {}: the first {} are compared\n",
                        comparison.steps, comparison.reference_steps,
                        std::min(comparison.steps, comparison.reference_steps));
  }
  return text + comparison.verdict + "\n";
}

std::vector<std::pair<std::string, std::string>> comparison_figures(const TrainingLog& run,
                                                                    const TrainingLog& reference) {
  std::vector<std::pair<std::string, std::string>> figures;
  const auto add = [&](const char* title, const char* unit, const Series& a, const Series& b,
                       const char* caption) {
    if (a.y.empty() || b.y.empty()) {
      return;
    }
    LinePlot plot{title, "step", unit, {averaged(a, kPlotPoints), averaged(b, kPlotPoints)}};
    plot.series[0].name = run.name;
    plot.series[1].name = "reference";
    if (plot.series[0].y.empty() || plot.series[1].y.empty()) {
      return;  // nothing finite
    }
    figures.emplace_back(to_svg(plot), caption);
  };
  add("Loss", "loss", run.loss, reference.loss, "Means over equal stretches of steps.");
  add("Gradient norm", "norm before clipping", run.grad_norm, reference.grad_norm,
      "Means over equal stretches of steps.");
  add("Camera gap", "dB", run.gap, reference.gap,
      "On held-out clips: how much better the right camera explains them.");
  return figures;
}

std::string reference_curve(const TrainingLog& run, int points) {
  require(!run.loss.y.empty(), "{}: has no losses to make a reference of", run.name);
  const int gaps = static_cast<int>(run.gap.x.size());
  const int bins = std::max(points - 1 - gaps, 1);
  std::map<int64_t, nlohmann::ordered_json> lines;
  const auto put = [&](const char* key, const Series& series) {
    for (size_t i = 0; i < series.x.size(); ++i) {
      const auto step = static_cast<int64_t>(std::llround(series.x[i]));
      lines[step]["step"] = step;
      // Six digits: more would be noise and bytes.
      lines[step][key] = std::stod(fmt::format("{:.6g}", series.y[i]));
    }
  };
  put("loss", averaged(run.loss, bins));
  put("grad_norm", averaged(run.grad_norm, bins));
  put("camera_gap", run.gap);
  lines[run.steps]["step"] = run.steps;  // so that the length is known
  std::string text;
  for (const auto& [step, line] : lines) {
    text += line.dump() + "\n";
  }
  return text;
}

}  // namespace minwm::eval
