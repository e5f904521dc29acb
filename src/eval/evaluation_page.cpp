// The report page.

#include <cmath>
#include <limits>

#include "minwm/eval/evaluation.h"

namespace minwm::eval {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kLossPoints = 160;

std::string shown(double value, int digits, bool sign = false) {
  if (std::isnan(value)) {
    return "–";
  }
  const double rounded = std::abs(value) < .5 * std::pow(10, -digits) ? 0 : value;  // never -0.00
  return sign ? fmt::format("{:+.{}f}", rounded, digits) : fmt::format("{:.{}f}", rounded, digits);
}

Table::Cell cell(const Mean& mean, int digits, bool sign = false) {
  return {shown(mean.value, digits, sign),
          std::isnan(mean.error) ? "" : fmt::format("± {:.{}f}", mean.error, digits)};
}

std::vector<Tile> tiles(const Evaluation& evaluation) {
  std::vector<Tile> list;
  for (const auto& h : headlines(evaluation)) {
    const Verdict verdict = !h.has_gate() || std::isnan(h.value) ? Verdict::kNone
                            : h.reached()                        ? Verdict::kGood
                                                                 : Verdict::kBad;
    list.push_back({h.label, h.text, h.has_gate() ? h.aim() : h.meaning, verdict});
  }
  return list;
}

Table rows_table(const Evaluation& evaluation) {
  Table table;
  table.columns = {
      {"video"},
      {"best scale",
       "amplitude of the commanded path that explains the video best: 1 as commanded, 0 still"},
      {"vs mirror", "dB closer to the commanded path than to its mirror image"},
      {"margin", "dB above the best of 7 rival paths"},
      {"top1", "share of clips whose commanded path beats all rivals"},
      {"acc3", "share of steps over three latents whose motion names the commanded key"},
      {"acc", "the same over one latent"},
      {"gain T", "recovered move over commanded move"},
      {"gain R", "recovered turn over commanded turn"},
      {"RotErr °", "mean angle between recovered and commanded orientation"},
      {"TransErr", "mean distance between recovered and commanded position, world units"},
      {"ok", "share of frames whose pose could be recovered"},
      {"PSNR", "dB against the exact video"},
      {"SSIM", "structural similarity to the exact video"},
      {"sharp", "mean gradient relative to the exact video through the codec"},
      {"flicker", "VBench's temporal flickering: 1 = frozen"},
      {"borders",
       "change where chunks begin over change inside them, relative to the exact video "
       "through the codec: 1 = as smooth"},
      {"grid",
       "how much more neighbours across token borders differ than others, relative to the "
       "exact video: 1 = no grid"}};
  for (size_t i = 0; i < evaluation.rows.size(); ++i) {
    const RowScores& p = evaluation.rows[i].pooled;
    table.rows.push_back({evaluation.rows[i].name, cell(p.best_scale, 2),
                          cell(p.vs_mirror, 1, true), cell(p.margin, 2, true), cell(p.top1, 2),
                          cell(p.accuracy3, 2), cell(p.accuracy, 2), cell(p.gain_translation, 2),
                          cell(p.gain_rotation, 2), cell(p.rotation_error, 1),
                          cell(p.translation_error, 2), cell(p.ok_share, 2), cell(p.psnr, 1),
                          cell(p.ssim, 2), cell(p.sharpness, 2), cell(p.flicker, 3),
                          cell(p.border_flicker, 2), cell(p.tile_grid, 2)});
    if (evaluation.rows[i].key == "model") {
      table.highlighted = static_cast<int>(i);
    }
  }
  return table;
}

std::string key_plot(const Evaluation& evaluation) {
  BarPlot plot{"Right key, by key (over three latents)", "share of steps", {}, {}, 1.12};
  for (const char* key : kKeys) {
    plot.groups.push_back(key);
  }
  for (const auto& [key, name] : {std::pair{"model", "model"},
                                  {"wrong", "wrong cameras"},
                                  {"truth", "truth through codec"}}) {
    const ActionCount& count = evaluation.row(key).pooled.three;
    BarPlot::Bars bars{name, {}};
    for (size_t k = 0; k < kKeys.size(); ++k) {
      bars.values.push_back(count.steps[k] > 0 ? static_cast<double>(count.hits[k]) / count.steps[k]
                                               : kNaN);
    }
    plot.bars.push_back(bars);
  }
  return to_svg(plot);
}

// Best scale of every clip, sorted: shows whether the mean hides failures.
std::string scale_plot(const Evaluation& evaluation) {
  LinePlot plot{"Best scale of every clip, sorted",
                "clip",
                "best scale",
                {},
                {{1, "as commanded"}, {0, "still"}}};
  for (const auto& [key, name] : {std::pair{"model", "model"}, {"wrong", "wrong cameras"}}) {
    Series series{name, {}, {}, true};
    for (const auto& clip : evaluation.row(key).clips) {
      if (!std::isnan(clip.rerender.best_scale)) {
        series.y.push_back(clip.rerender.best_scale);
      }
    }
    std::sort(series.y.begin(), series.y.end());
    for (size_t i = 0; i < series.y.size(); ++i) {
      series.x.push_back(static_cast<double>(i + 1));
    }
    if (!series.y.empty()) {
      plot.series.push_back(series);
    }
  }
  return plot.series.empty() ? "" : to_svg(plot);
}

using Figures = std::vector<std::pair<std::string, std::string>>;

Figures training_figures(const Evaluation& evaluation) {
  LinePlot loss{"Training loss", "step", "flow loss", {}},
      gap{"Camera gap during training", "step", "dB", {}};
  LinePlot halves{"One-step prediction, right and wrong camera", "step", "PSNR in dB", {}};
  for (const auto& log : evaluation.training) {
    if (!log.loss.y.empty()) {
      loss.series.push_back(averaged(log.loss, kLossPoints));
    }
    if (!std::isnan(log.copy)) {
      halves.references = {Reference{log.copy, "a true latent shown throughout"}};
    }
    for (auto [plot, series] :
         {std::pair{&gap, &log.gap}, {&halves, &log.right}, {&halves, &log.wrong}}) {
      if (!series->y.empty()) {
        plot->series.push_back(*series);
      }
    }
  }
  Figures figures;
  const auto add = [&](const LinePlot& plot, const char* caption) {
    if (!plot.series.empty()) {
      figures.emplace_back(to_svg(plot), caption);
    }
  };
  add(loss,
      "Mean over equal stretches of steps. The stages predict from different histories, so their "
      "losses are not "
      "comparable with each other.");
  add(gap,
      "On held-out clips: PSNR of the one-step prediction from pure noise with the right camera "
      "minus that with "
      "another clip's. Zero until the camera is used.");
  add(halves, "The two halves of the gap.");
  return figures;
}

void add_meanings(HtmlReport& report, int64_t given) {
  report.section(
      "What the numbers mean",
      fmt::format(
          "Every clip is a held-out procedural world, so the exact view from any camera can be "
          "rendered "
          "and the generated video compared with it. The first {} given; what follows is judged.",
          given == 1 ? "latent (one frame) is" : fmt::format("{} latents are", given)));
  report.definitions(
      {{"camera gap",
        "How many dB better the model predicts held-out clips in one "
        "step when it "
        "is given the right camera instead of another clip's."},
       {"best scale",
        "The commanded path is rendered at amplitudes from -1 (mirrored) over 0 (still) to 1.25; "
        "where the "
        "generated video fits best. Works on blurred pictures; biased towards 0."},
       {"vs mirror",
        "PSNR against the commanded path minus PSNR against the mirrored path (forward and back, "
        "left and "
        "right, swapped). The earliest sign of following."},
       {"margin, top1",
        "The same against the best of seven rivals: mirror, half amplitude, one chunk late, still, "
        "three "
        "other paths. A timid model loses to \"half\" and \"late\", so these come last."},
       {"acc, acc3",
        "Optical flow between latent frames is compared with the flow that each of eight keys and "
        "standing "
        "still would cause; share of steps where the commanded key fits best, over one or three "
        "latents."},
       {"gain, RotErr, TransErr, ok",
        "Corners of a render with known depth are followed into the generated video, which "
        "gives its camera in world units. Gain 1 = right amplitude. Believe the gain of "
        "moves only where ok is at least 0.8."},
       {"wrong cameras",
        "The same model, worlds and noise, but steered by the cameras of other clips and judged "
        "against "
        "this clip's path. It must fail; otherwise the numbers would measure something else."},
       {"± ",
        "Standard error over clips (of pooled shares and gains: by leaving out one clip at a "
        "time)."}});
}

void add_real(HtmlReport& report, const Evaluation& evaluation) {
  if (evaluation.real.empty()) {
    return;
  }
  double sum = 0;
  for (const auto& clip : evaluation.real) {
    sum += clip.psnr;
  }
  report.section("Real video through the codec",
                 fmt::format("Real clips at the model's size, encoded and decoded: the picture "
                             "quality that training on "
                             "them can reach. Mean PSNR {:.1f} dB over {} clip{}.",
                             sum / static_cast<double>(evaluation.real.size()),
                             evaluation.real.size(), evaluation.real.size() == 1 ? "" : "s"));
  for (const auto& clip : evaluation.real) {
    if (!clip.sheet.rows.empty()) {
      report.sheet(clip.sheet);
    }
  }
}

}  // namespace

std::string to_html(const Evaluation& evaluation) {
  HtmlReport report(
      "Does the video follow the camera?",
      fmt::format("{}, stage {}, step {} · {} · {} clips of {} latents in unseen worlds · {:.0f} s",
                  evaluation.model, evaluation.stage, evaluation.step, evaluation.sampler,
                  evaluation.clips.size(),
                  evaluation.clips.empty() ? 0 : evaluation.clips[0].frames(), evaluation.seconds));
  report.section("In short");
  report.tiles(tiles(evaluation));
  for (const auto& text : in_words(evaluation)) {
    report.paragraph(text);
  }
  if (evaluation.latency.measured()) {
    report.paragraph(in_words(evaluation.latency));
  }
  report.section(
      "Results",
      "Mean over clips and its standard error. The exact video through the codec is the ceiling, a "
      "frozen first frame the floor. Point at a column's name for its meaning.");
  report.table(rows_table(evaluation));
  Figures figures = {{key_plot(evaluation),
                      "Keys: w s move forward and back, a d left and right, j l turn, i k tilt."}};
  if (const std::string plot = scale_plot(evaluation); !plot.empty()) {
    figures.emplace_back(plot, "Every dot is a clip that moves.");
  }
  report.figures(figures);
  if (!evaluation.sheets.empty()) {
    report.section("What it looks like",
                   "One frame per latent under the commanded key; the players show every frame. "
                   "These clips are the first ones, not picked.");
    for (const auto& sheet : evaluation.sheets) {
      report.sheet(sheet);
    }
  }
  if (evaluation.drift.measured()) {
    report.section("A long stream", in_words(evaluation.drift));
    report.figures(drift_figures(evaluation.drift));
  }
  if (const Figures curves = training_figures(evaluation); !curves.empty()) {
    report.section("Training");
    report.figures(curves);
  }
  add_real(report, evaluation);
  add_meanings(report, evaluation.clips.empty() ? 1 : evaluation.clips.front().given);
  report.details("Options of this evaluation", evaluation.options);
  return report.html();
}

}  // namespace minwm::eval
