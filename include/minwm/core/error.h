#pragma once
// The one exception type, and the exit codes every program shares.

#include <stdexcept>
#include <string>
#include <utility>

#include <spdlog/fmt/fmt.h>

namespace minwm {

/// Exit codes of every program: scripts rely on them.
enum ExitCode : int {
  kExitDone = 0,
  kExitBadInput = 2,  ///< wrong option, missing or malformed file
  kExitStopped = 3,   ///< stopped on request after a checkpoint: requeue
  kExitFailure = 70,  ///< anything unexpected
  kExitTimeout = 75,  ///< a collective did not complete in time
};

/// What was wrong, where (file, key, tensor), and what was expected: always one line.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = kExitBadInput)
      : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// Throws Error with the formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error with the formatted message unless `condition` holds. For input from outside.
template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) {
    throw Error(fmt::format(format, std::forward<Args>(args)...));
  }
}

/// The exception being handled, as one line (LibTorch's without its backtrace) and an exit code.
struct Failure {
  std::string message;
  int exit_code;
};

/// Call inside a catch block only.
Failure current_failure();

/// Runs `body`; turns any exception into one line on stderr and the right exit code.
/// `program` prefixes the line. Every main() is `return run_main("minwm", body, argc, argv);`.
int run_main(const char* program, int (*body)(int, char**), int argc, char** argv);

}  // namespace minwm
