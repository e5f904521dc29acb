#include "minwm/train/metrics.h"

#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::train {
namespace {

/// The whole lines of `text` whose step is at most `last_step`.
std::string lines_until(const std::string& text, int64_t last_step) {
  std::string kept;
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != std::string::npos;
       begin = end + 1, end = text.find('\n', begin)) {
    const std::string line = text.substr(begin, end - begin);
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
        json["step"].get<int64_t>() <= last_step) {
      kept += line + '\n';
    }
  }
  return kept;
}

std::filesystem::path cut(const std::filesystem::path& path, int64_t last_step) {
  const std::string before = std::filesystem::exists(path) ? read_file(path) : "";
  const std::string after = lines_until(before, last_step);
  if (after != before) {
    atomic_write(path, after);
  }
  return path;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& folder, int64_t last_step)
    : path_(cut(folder / "metrics.jsonl", last_step)), events_(folder, last_step + 1) {
  file_.reset(std::fopen(path_.c_str(), "ab"));
  require(file_ != nullptr, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

void MetricsLog::write(const StepMetrics& m) {
  nlohmann::ordered_json line = {
      {"step", m.step},           {"loss", m.loss},
      {"grad_norm", m.grad_norm}, {"lr", m.lr},
      {"seconds", m.seconds},     {"tokens_per_second", m.tokens_per_second},
      {"data_wait", m.data_wait},
  };
  std::map<std::string, double> curves = {
      {"train/loss", m.loss},
      {"train/grad_norm", m.grad_norm},
      {"train/lr", m.lr},
      {"speed/step_seconds", m.seconds},
      {"speed/tokens_per_second", m.tokens_per_second},
      {"speed/data_wait", m.data_wait},
  };
  if (m.skipped) {
    line["skipped"] = true;
  }
  for (const auto& [name, value] : m.more) {
    line[name] = value;
    curves["train/" + name] = value;
  }
  const std::string text = line.dump() + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
                       std::fflush(file_.get()) == 0;
  require(written, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  events_.scalars(m.step, curves);
}

}  // namespace minwm::train
