// minwm: finds the subcommand and runs it on every rank.

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/log.h"
#include "minwm/core/options.h"

namespace minwm::apps {
namespace {

struct Entry {
  std::string summary;
  Command command;
};

/// Filled before main by the registrars; a function so that it exists before the first of them.
std::map<std::string, Entry>& table() {
  static std::map<std::string, Entry> commands;
  return commands;
}

/// One line per command whose name starts with `group`.
std::string usage(const std::string& group) {
  std::string text =
      "usage: minwm COMMAND [--config FILE] [--section.key VALUE ...]\n"
      "       minwm COMMAND --help | minwm --version\n\ncommands:\n";
  for (const auto& [name, entry] : table()) {
    if (name.starts_with(group)) {
      text += fmt::format("  {:<18} {}\n", name, entry.summary);
    }
  }
  return text + "\nSeveral ranks: mpirun -n N minwm COMMAND ...\n";
}

/// How many words of argv name a command: 1 or 2; 0 if none is known.
int command_words(int argc, char** argv) {
  for (const int words : {2, 1}) {
    if (argc > words) {
      const std::string name = words == 2 ? fmt::format("{} {}", argv[1], argv[2]) : argv[1];
      if (table().contains(name)) {
        return words;
      }
    }
  }
  return 0;
}

/// True if "data" is the first word of some "data synth".
bool is_group(const std::string& word) {
  const auto next = table().lower_bound(word + " ");
  return next != table().end() && next->first.starts_with(word + " ");
}

[[noreturn]] void fail_unknown(int argc, char** argv) {
  const std::string name =
      is_group(argv[1]) && argc > 2 ? fmt::format("{} {}", argv[1], argv[2]) : std::string(argv[1]);
  std::vector<std::string> names;
  for (const auto& [known, entry] : table()) {
    names.push_back(known);
  }
  const std::string nearest = nearest_name(name, names);
  fail("unknown command '{}'; {}", name,
       nearest.empty() ? "minwm --help lists them"
                       : fmt::format("did you mean 'minwm {}'?", nearest));
}

int dispatch(comm::World& world, int argc, char** argv) {
  init_logging(world.rank(), world.size());
  const int words = command_words(argc, argv);
  const std::string name = words == 2 ? fmt::format("{} {}", argv[1], argv[2]) : argv[1];
  return table().at(name).command(world, argc - words, argv + words);
}

int start(int argc, char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "--version") {
    fmt::print("minwm {}\n", MINWM_VERSION);
    return kExitDone;
  }
  if (first == "--help" || first == "-h") {
    fmt::print("{}", usage(""));
    return kExitDone;
  }
  if (command_words(argc, argv) > 0) {
    return comm::run_world_main("minwm", argc, argv, dispatch);
  }
  const bool group = is_group(first);
  const std::string second = argc > 2 ? argv[2] : "";
  if (group && (second == "--help" || second == "-h")) {
    fmt::print("{}", usage(first + " "));
    return kExitDone;
  }
  if (first.empty() || (group && second.empty())) {
    fmt::print(stderr, "{}", usage(first.empty() ? "" : first + " "));
    return kExitBadInput;
  }
  fail_unknown(argc, argv);
}

}  // namespace

bool register_command(const std::string& name, const std::string& summary, Command command) {
  return table().emplace(name, Entry{summary, command}).second;
}

}  // namespace minwm::apps

int main(int argc, char** argv) {
  return minwm::run_main("minwm", minwm::apps::start, argc, argv);
}
