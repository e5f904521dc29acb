#include "compare_runs.h"

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/eval/report.h"
#include "minwm/eval/run_comparison.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;

/// The value of a key of the INI's top, e.g. "stage = dmd".
std::string top_value(const std::string& ini, const std::string& key, const fs::path& path) {
  const std::string top = "\n" + ini.substr(0, ini.find("\n["));
  const std::string sought = "\n" + key + " = ";
  const size_t at = top.find(sought);
  require(at != std::string::npos, "{}: names no {}; expected a run's config.ini", path.string(),
          key);
  const size_t from = at + sought.size();
  return top.substr(from, top.find('\n', from) - from);
}

fs::path shipped_reference(const fs::path& run) {
  const fs::path config = run / "config.ini";
  const std::string ini = read_file(config);
  const fs::path file = fs::path("recipes") / top_value(ini, "model", config) / "reference" /
                        (top_value(ini, "stage", config) + ".jsonl");
  require(fs::exists(file),
          "{}: no reference is shipped for this run ({} is absent): name one with "
          "--reference FILE",
          run.string(), file.string());
  return file;
}

/// One figure's SVG per measured quantity, and the page around them.
std::string page(const eval::TrainingLog& run, const eval::RunComparison& comparison,
                 const std::vector<std::pair<std::string, std::string>>& figures) {
  eval::HtmlReport report(
      "Training against the reference",
      fmt::format("{}: {} of {} steps", run.name, comparison.steps, comparison.reference_steps));
  report.section("In short");
  report.paragraph(comparison.verdict);
  report.figures(figures);
  report.details("Table", eval::to_text(comparison));
  return report.html();
}

}  // namespace

int compare_runs(const fs::path& run, const fs::path& reference) {
  const auto log = eval::read_training_log(run / "metrics.jsonl");
  const auto expected =
      eval::read_training_log(reference.empty() ? shipped_reference(run) : reference);
  const auto comparison = eval::compare(log, expected);
  const auto figures = eval::comparison_figures(log, expected);
  std::vector<std::string> plots;
  for (const auto& [svg, caption] : figures) {
    plots.push_back(svg);
  }
  atomic_write(run / "compare.svg", eval::stacked_svg(plots));
  atomic_write(run / "compare.html", page(log, comparison, figures));
  fmt::print("{}{}\n", eval::to_text(comparison), (run / "compare.html").string());
  return kExitDone;
}

int write_reference(const fs::path& run, const fs::path& file) {
  atomic_write(file, eval::reference_curve(eval::read_training_log(run / "metrics.jsonl")));
  fmt::print("{}\n", file.string());
  return kExitDone;
}

}  // namespace minwm::apps
