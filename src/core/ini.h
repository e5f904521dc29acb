#pragma once
// INI text: `[section]`, `key = value`, comments with # and ;, `include = FILE` at the top.

#include <filesystem>
#include <string>
#include <vector>

namespace minwm {

struct IniSetting {
  std::string key;    ///< with its section: "optimizer.lr"
  std::string value;  ///< trimmed, unquoted, without comment
  std::string where;  ///< "file.ini:12"
};

/// Settings of `file` in order, those of its includes first.
/// @throws Error with file and line for anything that is no setting, a key given twice in one file,
/// an include below other lines, or includes that go in a circle.
std::vector<IniSetting> parse_ini(const std::filesystem::path& file);

/// `value` so that parse_ini reads it back: in quotes if it holds a comment sign, a quote, a line
/// break or outer blanks.
std::string quote_ini(const std::string& value);

}  // namespace minwm
