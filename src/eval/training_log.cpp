#include "minwm/eval/training_log.h"

#include <fstream>
#include <limits>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"

namespace minwm::eval {
namespace {

using Json = nlohmann::json;

std::optional<double> number(const Json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? std::optional(found->get<double>())
                                                   : std::nullopt;
}

Series to_series(const std::string& name, const std::map<int64_t, double>& values, bool markers) {
  Series series{name, {}, {}, markers};
  for (const auto& [step, value] : values) {
    series.x.push_back(static_cast<double>(step));
    series.y.push_back(value);
  }
  return series;
}

}  // namespace

TrainingLog read_training_log(const std::filesystem::path& path) {
  std::ifstream file(path);
  require(file.good(), "{}: cannot be read; expected a run's metrics.jsonl", path.string());
  std::map<int64_t, double> loss, grad_norm, seconds, gap, right, wrong, copy;
  TrainingLog log;
  std::string line;
  for (int number_of_line = 1; std::getline(file, line); ++number_of_line) {
    const bool cut_off = file.eof();
    if (line.empty()) {
      continue;
    }
    const Json object = Json::parse(line, nullptr, false);
    if (cut_off && object.is_discarded()) {
      break;
    }
    require(object.is_object() && number(object, "step"),
            "{}:{}: expected a JSON object with a step", path.string(), number_of_line);
    const auto step = static_cast<int64_t>(*number(object, "step"));
    const auto keep = [&](std::map<int64_t, double>& values, const char* key) {
      if (const auto value = number(object, key)) {
        values[step] = *value;
      }
    };
    keep(loss, "loss");
    keep(grad_norm, "grad_norm");
    keep(seconds, "seconds");
    keep(gap, "camera_gap");
    keep(copy, "gap_copy");
    keep(right, "gap_right");
    keep(wrong, "gap_wrong");
    log.steps = std::max(log.steps, step);
  }
  require(log.steps > 0, "{}: has no lines; expected a run's metrics.jsonl", path.string());
  log.name = std::filesystem::absolute(path).parent_path().filename().string();
  for (const auto& [step, value] : seconds) {
    log.seconds += value;
  }
  log.loss = to_series(log.name, loss, false);
  log.grad_norm = to_series(log.name, grad_norm, false);
  log.gap = to_series(log.name, gap, true);
  log.right = to_series(log.name + ", right camera", right, true);
  log.wrong = to_series(log.name + ", another clip's camera", wrong, true);
  log.copy = copy.empty() ? std::numeric_limits<double>::quiet_NaN() : copy.rbegin()->second;
  return log;
}

}  // namespace minwm::eval
