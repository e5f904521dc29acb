#include "minwm/core/options.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>

#include "minwm/core/error.h"

namespace minwm {
namespace po = boost::program_options;
namespace {

std::string trim(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> items;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) {
    if (!trim(item).empty()) {
      items.push_back(trim(item));
    }
  }
  return items;
}

// --- text <-> value; parse_value returns false if the text is not of the type.
bool parse_value(const std::string& text, std::string* value) {
  *value = text;
  return true;
}
bool parse_value(const std::string& text, bool* value) {
  const bool yes = text == "true" || text == "1" || text == "on" || text == "yes";
  *value = yes;
  return yes || text == "false" || text == "0" || text == "off" || text == "no";
}
bool parse_value(const std::string& text, int64_t* value) {
  try {
    size_t used = 0;
    *value = std::stoll(text, &used);
    return used == text.size();
  } catch (const std::exception&) {
    return false;
  }
}
bool parse_value(const std::string& text, double* value) {
  try {
    size_t used = 0;
    *value = std::stod(text, &used);
    return used == text.size();
  } catch (const std::exception&) {
    return false;
  }
}
template <class T>
bool parse_value(const std::string& text, std::vector<T>* values) {
  values->clear();
  for (const auto& item : split_list(text)) {
    T value{};
    if (!parse_value(item, &value)) {
      return false;
    }
    values->push_back(value);
  }
  return true;
}

std::string format_value(const std::string& value) { return value; }
std::string format_value(bool value) { return value ? "true" : "false"; }
std::string format_value(int64_t value) { return std::to_string(value); }
std::string format_value(double value) { return fmt::format("{}", value); }  // shortest text that reads back equal
template <class T>
std::string format_value(const std::vector<T>& values) {
  std::string text;
  for (const auto& value : values) {
    text += (text.empty() ? "" : ",") + format_value(value);
  }
  return text;
}

template <class T>
constexpr const char* kTypeName = "a value";
template <>
constexpr const char* kTypeName<bool> = "true or false";
template <>
constexpr const char* kTypeName<int64_t> = "a whole number";
template <>
constexpr const char* kTypeName<double> = "a number";
template <>
constexpr const char* kTypeName<std::vector<int64_t>> = "whole numbers separated by commas";
template <>
constexpr const char* kTypeName<std::vector<double>> = "numbers separated by commas";

struct Entry {
  std::string help, type, default_text;
  bool is_flag = false, given = false;
  std::function<bool(const std::string&)> set;
  std::function<std::string()> get;
};

}  // namespace

struct Options::Impl {
  std::string program, summary;
  std::map<std::string, Entry> entries;
  std::vector<std::string> order;
  std::string positional_name, positional_help;
  std::vector<std::string>* positional_values = nullptr;
  int positional_max = 0;
  std::vector<std::string> config_files;

  std::vector<std::string> keys() const {
    std::vector<std::string> all = order;
    all.insert(all.end(), {"config", "help"});
    return all;
  }

  [[noreturn]] void unknown(const std::string& where, const std::string& shown, const std::string& key) const {
    const std::string nearest = nearest_name(key, keys());
    const std::string prefix = shown.rfind("--", 0) == 0 ? "--" : "";
    throw Error(fmt::format("{}unknown option {}{}", where, shown,
                            nearest.empty() ? " (see --help)" : fmt::format("; did you mean {}{}?", prefix, nearest)));
  }

  void set(const std::string& where, const std::string& shown, const std::string& key, const std::string& text) {
    const auto found = entries.find(key);
    if (found == entries.end()) {
      unknown(where, shown, key);
    }
    if (!found->second.set(text)) {
      throw Error(fmt::format("{}{} = '{}': expected {}", where, shown, text, found->second.type));
    }
    found->second.given = true;
  }
};

Options::Options(std::string program, std::string summary) : impl_(std::make_unique<Impl>()) {
  impl_->program = std::move(program);
  impl_->summary = std::move(summary);
}
Options::~Options() = default;

template <class T>
void Options::add(const std::string& key, T* value, const std::string& help) {
  TORCH_INTERNAL_ASSERT(!impl_->entries.count(key), "option declared twice: ", key);
  Entry entry;
  entry.help = help;
  entry.type = kTypeName<T>;
  entry.default_text = format_value(*value);
  entry.is_flag = std::is_same_v<T, bool>;
  entry.set = [value](const std::string& text) { return parse_value(text, value); };
  entry.get = [value] { return format_value(*value); };
  impl_->entries.emplace(key, std::move(entry));
  impl_->order.push_back(key);
}
template void Options::add(const std::string&, int64_t*, const std::string&);
template void Options::add(const std::string&, double*, const std::string&);
template void Options::add(const std::string&, bool*, const std::string&);
template void Options::add(const std::string&, std::string*, const std::string&);
template void Options::add(const std::string&, std::vector<int64_t>*, const std::string&);
template void Options::add(const std::string&, std::vector<double>*, const std::string&);
template void Options::add(const std::string&, std::vector<std::string>*, const std::string&);

void Options::add_choice(const std::string& key, std::string* value, std::vector<std::string> choices,
                         const std::string& help) {
  add(key, value, help);
  Entry& entry = impl_->entries.at(key);
  entry.type = "one of " + format_value(choices);
  entry.set = [value, choices](const std::string& text) {
    *value = text;
    return std::find(choices.begin(), choices.end(), text) != choices.end();
  };
}

void Options::positional(const std::string& name, std::vector<std::string>* values, int max, const std::string& help) {
  impl_->positional_name = name;
  impl_->positional_values = values;
  impl_->positional_max = max;
  impl_->positional_help = help;
}

void Options::read_ini(const std::filesystem::path& file) {
  std::ifstream in(file);
  require(in.good() && !std::filesystem::is_directory(file), "--config {}: cannot be read", file.string());
  std::string section;
  int number = 0;
  std::set<std::string> seen;
  for (std::string line; std::getline(in, line);) {
    const std::string where = fmt::format("{}:{}: ", file.string(), ++number);
    // A comment starts the line or follows a blank, so that "w*3;l*2" stays a value.
    for (const char mark : {'#', ';'}) {
      for (size_t at = line.find(mark); at != std::string::npos; at = line.find(mark, at + 1)) {
        if (at == 0 || line[at - 1] == ' ' || line[at - 1] == '\t') {
          line.resize(at);
          break;
        }
      }
    }
    line = trim(line);
    if (line.empty()) {
      continue;
    }
    if (line.front() == '[') {
      require(line.back() == ']', "{}section '{}' lacks its closing bracket", where, line);
      section = trim(line.substr(1, line.size() - 2));
      continue;
    }
    const auto equals = line.find('=');
    require(equals != std::string::npos, "{}'{}': expected key = value", where, line);
    const std::string name = trim(line.substr(0, equals)), value = trim(line.substr(equals + 1));
    const std::string key = section.empty() ? name : section + "." + name;
    if (key == "include") {
      read_ini(file.parent_path() / value);
      continue;
    }
    require(seen.insert(key).second, "{}{} is given twice in this file", where, key);
    impl_->set(where, key, key, value);
  }
}

bool Options::parse(int argc, const char* const* argv) {
  // Boost splits the words; binding, lists and error texts are ours.
  po::options_description description;
  auto add = description.add_options();
  add("help,h", po::bool_switch());
  add("config", po::value<std::vector<std::string>>()->composing());
  for (const auto& key : impl_->order) {
    auto* semantic = po::value<std::vector<std::string>>()->composing();
    if (impl_->entries.at(key).is_flag) {
      semantic->implicit_value({"true"}, "true");
    }
    add(key.c_str(), semantic);
  }
  // A bare "--flag true" reads as flag plus word; join the two so that both spellings work.
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    const auto found = word.rfind("--", 0) == 0 ? impl_->entries.find(word.substr(2)) : impl_->entries.end();
    if (found != impl_->entries.end() && found->second.is_flag && i + 1 < argc) {
      bool ignored = false;
      if (parse_value(std::string(argv[i + 1]), &ignored)) {
        word += "=" + std::string(argv[++i]);
      }
    }
    words.push_back(word);
  }
  try {
    const auto style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    const auto parsed = po::command_line_parser(words).options(description).style(style).allow_unregistered().run();
    for (const auto& option : parsed.options) {
      if (option.string_key == "help") {
        fmt::print("{}", help());
        return false;
      }
      if (option.string_key == "config") {
        impl_->config_files.insert(impl_->config_files.end(), option.value.begin(), option.value.end());
      }
    }
    for (const auto& file : impl_->config_files) {
      read_ini(file);
    }
    for (const auto& option : parsed.options) {
      if (option.position_key >= 0) {
        const auto& word = option.value.front();
        require(impl_->positional_values != nullptr &&
                    (impl_->positional_max < 0 ||
                     static_cast<int>(impl_->positional_values->size()) < impl_->positional_max),
                "unexpected argument '{}'", word);
        impl_->positional_values->push_back(word);
      } else if (option.unregistered) {
        const std::string shown = option.original_tokens.front();
        const std::string flag = shown.substr(0, shown.find('='));
        impl_->unknown("", flag, flag.substr(std::min<size_t>(2, flag.find_first_not_of('-'))));
      } else if (option.string_key != "config") {
        impl_->set("", "--" + option.string_key, option.string_key, option.value.empty() ? "true" : option.value.back());
      }
    }
  } catch (const po::error& error) {
    throw Error(error.what());
  }
  return true;
}

bool Options::given(const std::string& key) const { return impl_->entries.at(key).given; }

std::string Options::to_ini() const {
  std::map<std::string, std::string> sections;
  for (const auto& [key, entry] : impl_->entries) {
    const auto dot = key.rfind('.');
    const std::string section = dot == std::string::npos ? "" : key.substr(0, dot);
    const std::string name = dot == std::string::npos ? key : key.substr(dot + 1);
    sections[section] += fmt::format("{} = {}\n", name, entry.get());
  }
  std::string text;
  for (const auto& [section, lines] : sections) {
    text += section.empty() ? lines : fmt::format("\n[{}]\n{}", section, lines);
  }
  return text;
}

std::string Options::help() const {
  std::string text = fmt::format("{} - {}\n\nusage: {} [--config FILE] [--section.key value …]", impl_->program,
                                 impl_->summary, impl_->program);
  if (impl_->positional_values != nullptr) {
    text += fmt::format(" {}\n\n  {:<34} {}", impl_->positional_name, impl_->positional_name, impl_->positional_help);
  }
  text += "\n\n";
  for (const auto& key : impl_->order) {
    const Entry& entry = impl_->entries.at(key);
    text += fmt::format("  --{:<32} {}{}\n", key, entry.help,
                        entry.default_text.empty() ? "" : fmt::format(" [{}]", entry.default_text));
  }
  text += fmt::format("  --{:<32} {}\n  --{:<32} {}\n", "config", "INI file; the command line wins over it", "help",
                      "this text");
  return text;
}

std::string nearest_name(const std::string& word, const std::vector<std::string>& known) {
  auto distance = [](const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) {
      row[j] = j;
    }
    for (size_t i = 1; i <= a.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= b.size(); ++j) {
        const size_t above = row[j];
        row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
        diagonal = above;
      }
    }
    return row[b.size()];
  };
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2) + 1;
  for (const auto& name : known) {
    // "lr" for "optimizer.lr" is as near as it gets.
    const bool suffix = name.size() > word.size() && name.ends_with("." + word);
    const size_t d = suffix ? 0 : distance(word, name);
    if (d < best_distance) {
      best_distance = d;
      best = name;
    }
  }
  return best;
}

}  // namespace minwm
