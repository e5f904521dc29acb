#include "published_files.h"

#include <algorithm>
#include <fstream>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/safetensors.h"
#include "minwm/core/sha256.h"
#include "minwm/core/sharded_safetensors.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;

/// The file is of a preset's line; "hy-8b-worldplay" needs all that "hy-8b" does.
bool belongs(const PublishedFile& file, std::string_view preset) {
  const std::string_view name = preset.substr(0, preset.find('@'));
  std::string_view lines = file.lines;
  while (!lines.empty()) {
    const size_t comma = lines.find(',');
    const std::string_view line = lines.substr(0, comma);
    const bool hy = line == "hy-8b" && name.starts_with("hy-8b");
    if (line == name || hy) {
      return true;
    }
    lines.remove_prefix(comma == std::string_view::npos ? lines.size() : comma + 1);
  }
  return false;
}

/// A zip file ends with its directory's end record, at most a comment before the end.
bool ends_as_zip(const fs::path& path) {
  constexpr std::streamoff kMost = 65'557;  // the record with its longest comment
  std::ifstream file(path, std::ios::binary);
  const auto size = static_cast<std::streamoff>(fs::file_size(path));
  file.seekg(std::max<std::streamoff>(0, size - kMost));
  std::string tail(static_cast<size_t>(std::min(size, kMost)), '\0');
  file.read(tail.data(), static_cast<std::streamsize>(tail.size()));
  return file && tail.rfind("PK\x05\x06") != std::string::npos;
}

/// What is wrong with a file's inside, "" if nothing shows.
std::string structure_fault(const fs::path& path) {
  const std::string name = path.filename().string();
  try {
    if (name.ends_with(".index.json")) {
      const ShardedSafetensors shards(path);
    } else if (name.ends_with(".safetensors")) {
      const Safetensors file(path);
    } else if (name.ends_with(".pt") || name.ends_with(".pth")) {
      return ends_as_zip(path) ? "" : "has no zip directory at its end";
    } else if (name.ends_with(".json") && !nlohmann::json::accept(read_file(path))) {
      return "is not valid JSON";
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

enum class State { kPresent, kMissing, kTruncated, kDamaged, kAbsent };
constexpr const char* kStateNames[] = {"present", "missing", "truncated", "damaged", "absent"};

struct Finding {
  State state;
  std::string note;
};

Finding look_at(const PublishedFile& file, const fs::path& folder, bool hashes) {
  const fs::path path = folder / file.path;
  if (!fs::is_regular_file(path)) {
    return {file.optional ? State::kAbsent : State::kMissing, file.optional ? "optional" : ""};
  }
  const auto size = static_cast<int64_t>(fs::file_size(path));
  const auto wrong_size = [&](const char* expected, int64_t bytes) -> Finding {
    return {size < bytes ? State::kTruncated : State::kDamaged,
            fmt::format("{} bytes, expected {}{}", size, expected, bytes)};
  };
  if (file.size > 0 && size != file.size) {
    return wrong_size("", file.size);
  }
  if (size < file.least) {
    return wrong_size("at least ", file.least);
  }
  if (const auto fault = structure_fault(path); !fault.empty()) {
    return {fault.find("truncated") != std::string::npos ? State::kTruncated : State::kDamaged,
            fault};
  }
  if (hashes && !file.sha256.empty()) {
    const std::string found = sha256_of_file(path);
    if (found != file.sha256) {
      return {State::kDamaged, fmt::format("sha256 {}, expected {}", found, file.sha256)};
    }
    return {State::kPresent, fmt::format("{} bytes, sha256 as published", size)};
  }
  return {State::kPresent, fmt::format("{} bytes", size)};
}

}  // namespace

FilesReport check_published_files(const fs::path& folder, const std::string& preset, bool hashes) {
  require(fs::is_directory(folder), "--check {}: is no folder", folder.string());
  FilesReport report;
  for (const auto& file : published_files()) {
    if (!belongs(file, preset)) {
      continue;
    }
    ++report.known;
    const Finding finding = look_at(file, folder, hashes);
    const bool there = finding.state == State::kPresent;
    report.missing += finding.state == State::kMissing ? 1 : 0;
    report.bad += finding.state == State::kTruncated || finding.state == State::kDamaged ? 1 : 0;
    report.text += fmt::format("{:<9} {}{}{}{}\n", kStateNames[static_cast<int>(finding.state)],
                               file.path, finding.note.empty() ? "" : "  " + finding.note,
                               there ? "" : "  from ", there ? "" : file.repository);
  }
  require(report.known > 0,
          "--model {}: nothing is published for it; expected wan-1.3b, wan-14b, wan-14b-i2v, "
          "hy-8b, hy-8b-ti2v or hy-8b-worldplay",
          preset);
  return report;
}

}  // namespace minwm::apps
