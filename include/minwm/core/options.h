#pragma once
// Dotted options: `[optimizer] lr = 2e-6` in an INI file and `--optimizer.lr 2e-6` on the command
// line are one option; the command line wins; an unknown key is an error that names the nearest
// known one.
//
//   struct LoaderOptions { int64_t batch = 8; void declare(Options& options); };
//   Options options("minwm train", "Runs one training stage.");
//   loader.declare(options);            // options.add("loader.batch", &batch, "clips per step");
//   if (!options.parse(argc, argv)) return kExitDone;   // --help was printed
//   atomic_write(dir / "config.ini", options.to_ini());

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace minwm {

class Options {
 public:
  Options(std::string program, std::string summary);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  /// Binds `--key` to `*value`; the value it holds now is the default shown by --help.
  /// `key` is `name` or `section.name`, lower case with underscores. T: int64_t, double, bool,
  /// std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string> (lists are
  /// comma separated). A bool is given as `--key`, `--key true` or `--key false`.
  template <class T>
  void add(const std::string& key, T* value, const std::string& help);

  /// Like add for a string that must be one of `choices`.
  void add_choice(const std::string& key, std::string* value, std::vector<std::string> choices,
                  const std::string& help);

  /// Accepts positional arguments into `*values` (at most `max`, -1 = any number).
  void positional(const std::string& name, std::vector<std::string>* values, int max,
                  const std::string& help);

  /// Parses `--config FILE` (repeatable; later files win; `include = other.ini` at the top of a
  /// file is read first, relative to that file) and then the command line. Returns false after
  /// printing --help.
  /// @throws Error naming the key, the file and line, and the nearest known key.
  [[nodiscard]] bool parse(int argc, const char* const* argv);

  /// Reads one INI file as parse does for --config.
  void read_ini(const std::filesystem::path& file);

  /// True if the key was given by a file or on the command line (not left at its default).
  bool given(const std::string& key) const;

  /// The resolved configuration: every option with its value, sections in alphabetical order.
  std::string to_ini() const;

  /// The text of --help.
  std::string help() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The entry of `known` nearest to `word` by edit distance, or "" if none is near.
std::string nearest_name(const std::string& word, const std::vector<std::string>& known);

}  // namespace minwm
