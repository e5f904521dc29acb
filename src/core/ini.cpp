#include "ini.h"

#include <map>

#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBlanks = " \t\r";
constexpr size_t kMaxIncludeDepth = 16;  // deeper than anybody nests; a circle reaches it at once

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  return begin == std::string::npos
             ? ""
             : text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

/// Cuts a comment: # or ; at the start or after a blank, so that "a;b" stays a value.
std::string without_comment(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const bool apart = i == 0 || text[i - 1] == ' ' || text[i - 1] == '\t';
    if ((text[i] == '#' || text[i] == ';') && apart) {
      return trim(text.substr(0, i));
    }
  }
  return trim(text);
}

std::string parse_value(const std::string& text, const std::string& where) {
  if (!text.starts_with('"')) {
    return without_comment(text);
  }
  std::string value;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      const std::string rest = without_comment(text.substr(i + 1));
      require(rest.empty(), "{}: '{}' after the closing quote", where, rest);
      return value;
    }
    if (text[i] == '\\' && i + 1 < text.size()) {
      ++i;
      value += text[i] == 'n' ? '\n' : text[i];
    } else {
      value += text[i];
    }
  }
  fail("{}: the closing quote is missing", where);
}

void parse_into(const fs::path& file, size_t depth, std::vector<IniSetting>& settings) {
  require(depth < kMaxIncludeDepth, "{}: includes go in a circle", file.string());
  const std::string content = read_file(file);
  std::map<std::string, int> first_line;
  std::string section;
  bool at_top = true;
  int line_number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string line = trim(content.substr(begin, end - begin));
    begin = end + 1;
    const std::string where = fmt::format("{}:{}", file.string(), ++line_number);
    if (line.empty() || line[0] == '#' || line[0] == ';') {
      continue;
    }
    if (line[0] == '[') {
      const std::string header = without_comment(line);
      require(header.size() > 2 && header.back() == ']', "{}: '{}' is no [section]", where, line);
      section = trim(header.substr(1, header.size() - 2)) + ".";
      at_top = false;
      continue;
    }
    const size_t equals = line.find('=');
    const std::string name = trim(line.substr(0, std::min(equals, line.size())));
    require(equals != std::string::npos && !name.empty(),
            "{}: '{}': expected [section] or key = value", where, line);
    const std::string value = parse_value(trim(line.substr(equals + 1)), where);
    if (section.empty() && name == "include") {
      require(at_top, "{}: include must stand before every other setting", where);
      parse_into(file.parent_path() / value, depth + 1, settings);
      continue;
    }
    at_top = false;
    const auto [earlier, fresh] = first_line.emplace(section + name, line_number);
    require(fresh, "{}: {} is given twice, first in line {}", where, section + name,
            earlier->second);
    settings.push_back({section + name, value, where});
  }
}

}  // namespace

std::vector<IniSetting> parse_ini(const fs::path& file) {
  std::vector<IniSetting> settings;
  parse_into(file, 0, settings);
  return settings;
}

std::string quote_ini(const std::string& value) {
  const bool plain = value.find_first_of("#;\"\n\r") == std::string::npos && trim(value) == value;
  if (plain) {
    return value;
  }
  std::string quoted = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
    }
    quoted += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return quoted + "\"";
}

}  // namespace minwm
