#include "minwm/core/options.h"

#include <algorithm>
#include <map>

#include <boost/program_options.hpp>

#include <c10/util/Exception.h>

#include "ini.h"
#include "minwm/core/error.h"
#include "option_value.h"

namespace minwm {
namespace {

namespace po = boost::program_options;

/// Keys are compared with underscores: --dry-run and --dry_run are one option.
std::string canonical(std::string key) {
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::string section_of(const std::string& key) {
  const size_t dot = key.find('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

enum class Source { kDefault, kFile, kCommandLine };

struct Entry {
  std::string key, help;
  std::unique_ptr<OptionValue> value;
  std::string initial;  // shown by --help
  Source source = Source::kDefault;
};

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row.back();
}

}  // namespace

struct Options::Impl {
  std::string program, summary;
  std::vector<Entry> entries;
  std::map<std::string, size_t> index;  // canonical key -> entry
  std::string positional_name, positional_help;
  std::vector<std::string>* positional_values = nullptr;
  int positional_max = 0;

  void add(const std::string& key, const std::string& help, std::unique_ptr<OptionValue> value) {
    const std::string initial = value->text();
    const bool fresh = index.emplace(canonical(key), entries.size()).second;
    TORCH_INTERNAL_ASSERT(fresh && key != "config" && key != "help" && key != "include", "option ",
                          key, " is declared twice");
    entries.push_back({key, help, std::move(value), initial});
  }

  std::string suggestion(const std::string& key, const std::string& prefix) const {
    std::vector<std::string> known = {"config"};
    for (const Entry& entry : entries) {
      known.push_back(entry.key);
    }
    const std::string nearest = nearest_name(key, known);
    return nearest.empty() ? fmt::format("{} --help lists the known ones", program)
                           : fmt::format("did you mean {}{}?", prefix, nearest);
  }

  void assign(const IniSetting& setting) {
    const auto found = index.find(canonical(setting.key));
    require(found != index.end(), "{}: unknown key '{}'; {}", setting.where, setting.key,
            suggestion(setting.key, ""));
    Entry& entry = entries[found->second];
    if (entry.source == Source::kCommandLine) {
      return;
    }
    require(entry.value->assign(setting.value), "{}: {} = {}: expected {}", setting.where,
            entry.key, setting.value, entry.value->expected());
    entry.source = Source::kFile;
  }

  /// Gives Boost what it understands: known spelling, `--flag` as `--flag=true`, no empty `=`.
  std::vector<std::string> prepare(int argc, const char* const* argv) const {
    std::vector<std::string> arguments;
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument == "--") {
        arguments.insert(arguments.end(), argv + i, argv + argc);
        break;
      }
      if (!argument.starts_with("--")) {
        arguments.push_back(argument == "-h" ? "--help" : argument);
        continue;
      }
      const size_t equals = argument.find('=');
      const std::string key = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
      const auto found = index.find(canonical(key));
      const bool is_known = found != index.end();
      const std::string flag = "--" + (is_known ? entries[found->second].key : key);
      const bool is_switch = is_known && entries[found->second].value->is_switch();
      if (equals != std::string::npos && equals + 1 == argument.size()) {
        arguments.insert(arguments.end(), {flag, ""});
      } else if (equals != std::string::npos) {
        arguments.push_back(flag + argument.substr(equals));
      } else if (is_switch) {
        bool ignored = false;
        const bool has_value = i + 1 < argc && parse_bool(argv[i + 1], &ignored);
        arguments.push_back(fmt::format("{}={}", flag, has_value ? argv[++i] : "true"));
      } else {
        arguments.push_back(flag);
      }
    }
    return arguments;
  }

  po::parsed_options run_boost(int argc, const char* const* argv) const {
    po::options_description description;
    description.add_options()("help", "")("config", po::value<std::string>(), "");
    for (const Entry& entry : entries) {
      description.add_options()(entry.key.c_str(), po::value<std::string>(), "");
    }
    namespace style = po::command_line_style;
    try {
      return po::command_line_parser(prepare(argc, argv))
          .options(description)
          .style(style::allow_long | style::long_allow_adjacent | style::long_allow_next)
          .run();
    } catch (const po::unknown_option& error) {
      const std::string name = error.get_option_name();
      const std::string key = name.substr(std::min(name.find_first_not_of('-'), name.size()));
      fail("unknown option --{}; {}", key, suggestion(key, "--"));
    } catch (const po::invalid_command_line_syntax& error) {
      const std::string name = error.get_option_name();
      const auto found = index.find(canonical(name.substr(std::min<size_t>(2, name.size()))));
      fail("{}: a value is missing; expected {}", name,
           found == index.end() ? "a file" : entries[found->second].value->expected());
    } catch (const po::error& error) {
      fail("{}", error.what());
    }
  }

  void assign_command_line(const po::option& option) {
    Entry& entry = entries[index.at(canonical(option.string_key))];
    const std::string& text = option.value.at(0);
    require(entry.value->assign(text), "--{} {}: expected {}", entry.key, text,
            entry.value->expected());
    entry.source = Source::kCommandLine;
  }

  void assign_positional(const std::string& text) {
    require(positional_values != nullptr, "unexpected argument '{}'; {} --help shows the usage",
            text, program);
    require(positional_max < 0 || static_cast<int>(positional_values->size()) < positional_max,
            "unexpected argument '{}': at most {} {} expected", text, positional_max,
            positional_name);
    positional_values->push_back(text);
  }

  /// Entries grouped by section, in declared order within one.
  std::map<std::string, std::vector<const Entry*>> sections() const {
    std::map<std::string, std::vector<const Entry*>> grouped;
    for (const Entry& entry : entries) {
      grouped[section_of(entry.key)].push_back(&entry);
    }
    return grouped;
  }
};

Options::Options(std::string program, std::string summary) : impl_(std::make_unique<Impl>()) {
  impl_->program = std::move(program);
  impl_->summary = std::move(summary);
}

Options::~Options() = default;

template <class T>
void Options::add(const std::string& key, T* value, const std::string& help) {
  impl_->add(key, help, make_option_value(value));
}
template void Options::add(const std::string&, int64_t*, const std::string&);
template void Options::add(const std::string&, double*, const std::string&);
template void Options::add(const std::string&, bool*, const std::string&);
template void Options::add(const std::string&, std::string*, const std::string&);
template void Options::add(const std::string&, std::vector<int64_t>*, const std::string&);
template void Options::add(const std::string&, std::vector<double>*, const std::string&);
template void Options::add(const std::string&, std::vector<std::string>*, const std::string&);

void Options::add_choice(const std::string& key, std::string* value,
                         std::vector<std::string> choices, const std::string& help) {
  impl_->add(key, help, make_choice_value(value, std::move(choices)));
}

void Options::positional(const std::string& name, std::vector<std::string>* values, int max,
                         const std::string& help) {
  impl_->positional_name = name;
  impl_->positional_values = values;
  impl_->positional_max = max;
  impl_->positional_help = help;
}

bool Options::parse(int argc, const char* const* argv) {
  const po::parsed_options parsed = impl_->run_boost(argc, argv);
  for (const po::option& option : parsed.options) {
    if (option.string_key == "help") {
      fmt::print("{}", help());
      return false;
    }
  }
  for (const po::option& option : parsed.options) {
    if (option.string_key == "config") {
      read_ini(option.value.at(0));
    }
  }
  for (const po::option& option : parsed.options) {
    if (option.position_key >= 0) {
      impl_->assign_positional(option.value.at(0));
    } else if (option.string_key != "config") {
      impl_->assign_command_line(option);
    }
  }
  return true;
}

void Options::read_ini(const std::filesystem::path& file) {
  for (const IniSetting& setting : parse_ini(file)) {
    impl_->assign(setting);
  }
}

bool Options::given(const std::string& key) const {
  const auto found = impl_->index.find(canonical(key));
  TORCH_INTERNAL_ASSERT(found != impl_->index.end(), "option ", key, " was never declared");
  return impl_->entries[found->second].source != Source::kDefault;
}

std::string Options::to_ini() const {
  std::string text;
  for (const auto& [section, entries] : impl_->sections()) {
    if (!section.empty()) {
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    const size_t prefix = section.empty() ? 0 : section.size() + 1;
    for (const Entry* entry : entries) {
      const std::string value = quote_ini(entry->value->text());
      text += fmt::format("{} ={}{}\n", entry->key.substr(prefix), value.empty() ? "" : " ", value);
    }
  }
  return text;
}

std::string Options::help() const {
  const bool takes_words = impl_->positional_values != nullptr;
  std::string text =
      fmt::format("{}\n\nusage: {} [--config FILE] [--section.key VALUE ...]{}{}\n", impl_->summary,
                  impl_->program, takes_words ? " " : "", impl_->positional_name);
  if (takes_words) {
    text += fmt::format("  {:<34} {}\n", impl_->positional_name, impl_->positional_help);
  }
  text += fmt::format("  {:<34} {}\n", "--config FILE",
                      "INI file with the options below; repeatable, later files win");
  for (const auto& [section, entries] : impl_->sections()) {
    text += section.empty() ? "\n" : fmt::format("\n[{}]\n", section);
    for (const Entry* entry : entries) {
      const std::string flag = fmt::format("--{} {}", entry->key, entry->value->placeholder());
      text += fmt::format("  {:<34} {}{}\n", flag, entry->help,
                          entry->initial.empty() ? "" : fmt::format(" [{}]", entry->initial));
    }
  }
  return text;
}

std::string nearest_name(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& name : known) {
    size_t distance = edit_distance(word, name);
    // "lr" should find "optimizer.lr": without its section a name may match by its last part.
    const size_t last = name.find_last_of(". ");
    if (last != std::string::npos && word.find_first_of(". ") == std::string::npos) {
      const std::string part = name.substr(last + 1);
      const size_t part_distance = edit_distance(word, part);
      if (part_distance <= part.size() / 3) {
        distance = std::min(distance, part_distance);
      }
    }
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace minwm
