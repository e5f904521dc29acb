#pragma once
// Several evaluations in one table: stages of a chain, few-step variants, students beside their
// teacher.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "minwm/eval/training_log.h"

namespace minwm::eval {

/// One evaluation (`metrics.json` of minwm evaluate).
struct StageRow {
  std::string name;  ///< as the table shows it
  std::string model, stage, sampler;
  /// By the column's key: "best_scale", "psnr", "first_frame_seconds", …; NaN where not measured.
  std::map<std::string, double> values;
};

struct StageTable {
  std::vector<StageRow> rows;
  std::string teacher;   ///< name of the row that "keeps" is relative to; "" = no such columns
  std::string baseline;  ///< name of the row that the speed-up is relative to; ""
  std::vector<TrainingLog> training;  ///< loss curves, may be empty
};

/// @param path  folder of an evaluation, or its metrics.json.
/// @throws Error naming the file: absent, no JSON, or not written by minwm evaluate.
StageRow read_stage_row(const std::string& name, const std::filesystem::path& path);

/// @throws Error if two rows share a name, or teacher or baseline name no row.
void check(const StageTable& table);

/// Every column of every row; undefined numbers are null.
nlohmann::ordered_json to_json(const StageTable& table);
/// A GitHub table and what its columns mean.
std::string to_markdown(const StageTable& table);
/// A page with the table, bars of following and latency, and the loss curves.
std::string to_html(const StageTable& table);

}  // namespace minwm::eval
