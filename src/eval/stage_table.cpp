#include "minwm/eval/stage_table.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/eval/report.h"

namespace minwm::eval {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kLossPoints = 160;

enum class From { kFile, kTeacher, kBaseline };
/// Which of the page's tables a column stands in.
enum class Part { kAll, kFollowing, kPicture, kSpeed };

struct Column {
  const char *key, *title, *meaning;
  int digits;
  /// kFile: a JSON pointer into metrics.json. kTeacher: the column whose value is divided by the
  /// teacher's. kBaseline: the column by whose value the baseline's is divided.
  const char* source;
  Part part;
  From from = From::kFile;
};

using enum Part;
constexpr Column kColumns[] = {
    {"step", "trained steps", "steps of this stage", 0, "/step", kFollowing},
    {"chunk_frames", "chunk", "latents generated together", 0, "/chunk_frames", kAll},
    {"best_scale", "best scale", "amplitude of the commanded path that fits best: 1 as commanded",
     2, "/rows/model/best_scale/mean", kFollowing},
    {"vs_mirror", "vs mirror, dB", "closer to the commanded path than to its mirror image", 2,
     "/rows/model/vs_mirror/mean", kFollowing},
    {"top1", "top1", "share of clips whose commanded path beats its 7 rivals", 2,
     "/rows/model/top1/mean", kFollowing},
    {"acc3", "acc3", "share of steps whose picture motion names the commanded key", 2,
     "/rows/model/acc3/mean", kFollowing},
    {"gain_translation", "gain T", "recovered move over commanded move", 2,
     "/rows/model/gain_translation/mean", kFollowing},
    {"gain_rotation", "gain R", "recovered turn over commanded turn", 2,
     "/rows/model/gain_rotation/mean", kFollowing},
    {"rotation_error", "RotErr, °", "between recovered and commanded orientation", 1,
     "/rows/model/rotation_error_degrees/mean", kFollowing},
    {"keeps_best_scale", "keeps: best scale", "relative to the teacher's", 2, "best_scale",
     kFollowing, From::kTeacher},
    {"psnr", "PSNR, dB", "against the exact video", 1, "/rows/model/psnr/mean", kPicture},
    {"keeps_psnr", "keeps: PSNR", "relative to the teacher's", 2, "psnr", kPicture, From::kTeacher},
    {"ssim", "SSIM", "structural similarity to the exact video", 3, "/rows/model/ssim/mean",
     kPicture},
    {"sharpness", "sharp", "mean gradient relative to the exact video through the codec", 2,
     "/rows/model/sharpness/mean", kPicture},
    {"border_flicker", "borders",
     "change at chunk borders over change inside, relative to the exact video: 1 = as smooth", 2,
     "/rows/model/border_flicker/mean", kPicture},
    {"tile_grid", "grid",
     "difference across token borders over the rest, relative to the exact video: 1 = no grid", 2,
     "/rows/model/tile_grid/mean", kPicture},
    {"long_brightness", "long: brightness",
     "last quarter of a long stream over its first chunk, the exact video's own change taken out",
     2, "/long/end_over_start/brightness", kPicture},
    {"long_sharpness", "long: sharp", "the same of sharpness", 2, "/long/end_over_start/sharpness",
     kPicture},
    {"latency_steps", "steps timed", "denoising steps before the first frame, as users get them", 0,
     "/latency/steps", kSpeed},
    {"first_frames", "frames at once", "video frames that are there then", 0,
     "/latency/first_frames", kSpeed},
    {"first_frame_seconds", "first frame, s",
     "from the request to the first decoded frames, one clip at a time", 4,
     "/latency/first_frame_seconds", kSpeed},
    {"speed_up", "speed-up", "the baseline's time to its first frame over this one's", 1,
     "first_frame_seconds", kSpeed, From::kBaseline},
    {"frames_per_second", "fps", "video frames per second from then on, one clip at a time", 0,
     "/latency/frames_per_second", kSpeed}};

const StageRow* find_row(const StageTable& table, const std::string& name) {
  for (const auto& row : table.rows) {
    if (row.name == name) {
      return &row;
    }
  }
  return nullptr;
}

double value_of(const StageTable& table, const StageRow& row, const Column& column) {
  if (column.from == From::kFile) {
    return row.values.at(column.key);
  }
  const bool keeps = column.from == From::kTeacher;
  const StageRow* other = find_row(table, keeps ? table.teacher : table.baseline);
  if (other == nullptr) {
    return kNaN;
  }
  const double own = row.values.at(column.source), reference = other->values.at(column.source);
  return keeps ? own / reference : reference / own;
}

// Columns of a part (kAll: of all of them) with at least one number in them.
std::vector<const Column*> shown_columns(const StageTable& table, Part part) {
  std::vector<const Column*> columns;
  for (const auto& column : kColumns) {
    const bool wanted = part == kAll || column.part == kAll || column.part == part;
    if (wanted && std::any_of(table.rows.begin(), table.rows.end(), [&](const StageRow& row) {
          return std::isfinite(value_of(table, row, column));
        })) {
      columns.push_back(&column);
    }
  }
  return columns;
}

std::string shown(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "–";
}

std::string relative_to(const StageTable& table) {
  std::string text;
  if (!table.teacher.empty()) {
    text += fmt::format("\"keeps\" is relative to {}. ", table.teacher);
  }
  if (!table.baseline.empty()) {
    text += fmt::format("The speed-up is relative to {}. ", table.baseline);
  }
  return text;
}

std::string in_one_line(std::string text) {
  std::replace(text.begin(), text.end(), '|', '/');
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

Table page_table(const StageTable& table, Part part) {
  Table page;
  page.columns = {{"stage"}};
  const auto columns = shown_columns(table, part);
  for (const auto* column : columns) {
    page.columns.push_back({column->title, column->meaning});
  }
  for (const auto& row : table.rows) {
    std::vector<Table::Cell> cells = {
        {row.name, fmt::format("{}, {}: {}", row.model, row.stage, row.sampler)}};
    for (const auto* column : columns) {
      cells.push_back({shown(value_of(table, row, *column), column->digits)});
    }
    page.rows.push_back(std::move(cells));
  }
  return page;
}

std::string bars(const StageTable& table, const char* title, const char* unit,
                 const std::vector<std::pair<const char*, const char*>>& keys_and_names) {
  BarPlot plot{title, unit, {}, {}};
  for (const auto& row : table.rows) {
    plot.groups.push_back(row.name);
  }
  for (const auto& [key, name] : keys_and_names) {
    BarPlot::Bars series{name, {}};
    for (const auto& row : table.rows) {
      series.values.push_back(row.values.at(key));
    }
    plot.bars.push_back(std::move(series));
  }
  return to_svg(plot);
}

std::string loss_plot(const StageTable& table) {
  LinePlot plot{"Training loss", "step", "loss", {}};
  for (const auto& log : table.training) {
    if (const Series curve = averaged(log.loss, kLossPoints); !curve.y.empty()) {
      plot.series.push_back(curve);
    }
  }
  return plot.series.empty() ? "" : to_svg(plot);
}

}  // namespace

StageRow read_stage_row(const std::string& name, const std::filesystem::path& path) {
  const auto file = std::filesystem::is_directory(path) ? path / "metrics.json" : path;
  const Json json = Json::parse(read_file(file), nullptr, false);
  require(json.is_object() && json.value("format", "") == "minwm-evaluation",
          "{}: is no metrics.json of minwm evaluate", file.string());
  StageRow row;
  row.name = name;
  row.model = json.value("model", "");
  row.stage = json.value("stage", "");
  row.sampler = json.value("sampler", "");
  for (const auto& column : kColumns) {
    if (column.from == From::kFile) {
      const Json::json_pointer pointer(column.source);
      const bool there = json.contains(pointer) && json[pointer].is_number();
      row.values[column.key] = there ? json[pointer].get<double>() : kNaN;
    }
  }
  return row;
}

void check(const StageTable& table) {
  require(!table.rows.empty(), "table: there are no evaluations");
  std::set<std::string> names;
  for (const auto& row : table.rows) {
    require(names.insert(row.name).second, "table: two evaluations are called '{}'", row.name);
  }
  for (const auto& [option, name] :
       {std::pair{"--teacher", table.teacher}, {"--baseline", table.baseline}}) {
    require(name.empty() || names.contains(name), "{} {}: names no evaluation; there are {}",
            option, name, fmt::join(names, ", "));
  }
}

nlohmann::ordered_json to_json(const StageTable& table) {
  Json json = {{"format", "minwm-stage-table"},
               {"version", 1},
               {"teacher", table.teacher},
               {"baseline", table.baseline},
               {"rows", Json::array()}};
  for (const auto& row : table.rows) {
    Json entry = {
        {"name", row.name}, {"model", row.model}, {"stage", row.stage}, {"sampler", row.sampler}};
    for (const auto& column : kColumns) {
      entry[column.key] = value_of(table, row, column);
    }
    json["rows"].push_back(std::move(entry));
  }
  return json;
}

std::string to_markdown(const StageTable& table) {
  const auto columns = shown_columns(table, kAll);
  std::string head = "| | sampler |", rule = "|---|---|", body, meanings;
  for (const auto* column : columns) {
    head += fmt::format(" {} |", column->title);
    rule += "---:|";
    meanings += fmt::format("- {}: {}\n", column->title, column->meaning);
  }
  for (const auto& row : table.rows) {
    body += fmt::format("| {} | {} |", in_one_line(row.name), in_one_line(row.sampler));
    for (const auto* column : columns) {
      body += fmt::format(" {} |", shown(value_of(table, row, *column), column->digits));
    }
    body += "\n";
  }
  const std::string relative = relative_to(table);
  return head + "\n" + rule + "\n" + body + "\n" + (relative.empty() ? "" : relative + "\n\n") +
         meanings;
}

std::string to_html(const StageTable& table) {
  HtmlReport report("Stage by stage",
                    fmt::format("{} evaluations on the same unseen worlds", table.rows.size()));
  report.section("Does it follow?",
                 relative_to(table) + "Point at a column's name for its meaning.");
  report.table(page_table(table, kFollowing));
  report.section("What does the picture keep?");
  report.table(page_table(table, kPicture));
  report.section("How long does a viewer wait?",
                 "Time grows with the steps and with the frames that are denoised together: a "
                 "stream shows its first chunk when that is done.");
  report.table(page_table(table, kSpeed));
  report.section("Plots");
  std::vector<std::pair<std::string, std::string>> figures = {
      {bars(table, "Following", "1 = as commanded, or all clips",
            {{"best_scale", "best scale"}, {"top1", "top1"}, {"acc3", "acc3"}}),
       "Best scale: amplitude that fits best. top1: clips that beat all rivals. acc3: right key."},
      {bars(table, "Picture", "relative to the exact video",
            {{"sharpness", "sharpness"},
             {"border_flicker", "chunk borders"},
             {"tile_grid", "grid"}}),
       "1 = as the exact video."},
      {bars(table, "First frame", "seconds", {{"first_frame_seconds", "first frame"}}),
       "From the request to the first decoded frames, one clip at a time."}};
  if (const std::string loss = loss_plot(table); !loss.empty()) {
    figures.emplace_back(loss,
                         "Means over equal stretches of steps. Stages have different losses: only "
                         "the shape of each curve says something.");
  }
  report.figures(figures);
  return report.html();
}

}  // namespace minwm::eval
