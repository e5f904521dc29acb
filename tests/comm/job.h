#pragma once
// For tests that start a program of several ranks and look at how it ends.

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

#include <sys/wait.h>

namespace minwm::testing {

struct JobOutcome {
  int code = -1;  ///< 128 + the signal that ended it, as a shell says it
  double seconds = 0;
  std::string output;  ///< stdout and stderr
};

/// Runs one line in the shell to its end.
inline JobOutcome run_job(const std::string& command) {
  const auto begin = std::chrono::steady_clock::now();
  JobOutcome outcome;
  FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    outcome.output += buffer.data();
  }
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return outcome;
}

}  // namespace minwm::testing
