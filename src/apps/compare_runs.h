#pragma once
// `minwm train --compare RUN [--reference FILE | --write_reference FILE]`.

#include <filesystem>

namespace minwm::apps {

/// Lays RUN/metrics.jsonl over a reference curve: writes RUN/compare.svg and RUN/compare.html,
/// prints a table and the verdict. An empty `reference` is the shipped one of the run's model and
/// stage (RUN/config.ini), recipes/MODEL/reference/STAGE.jsonl below the working folder.
/// @return kExitDone, whatever the verdict.
/// @throws Error naming the file that is absent, damaged or empty.
int compare_runs(const std::filesystem::path& run, const std::filesystem::path& reference);

/// Makes a reference curve of a run: means over bins, at most 200 lines (eval/run_comparison.h).
/// @throws Error naming the file.
int write_reference(const std::filesystem::path& run, const std::filesystem::path& file);

}  // namespace minwm::apps
