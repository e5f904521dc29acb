#pragma once
// The real programs as a user starts them.

#include <array>
#include <cstdio>
#include <string>

#include <sys/wait.h>

namespace minwm::testing {

struct Outcome {
  int code;
  std::string output;  ///< stdout and stderr, unless the command says otherwise
};

/// Runs a line in the shell, one thread per rank.
inline Outcome shell(const std::string& command) {
  FILE* const pipe = ::popen(("export OMP_NUM_THREADS=1; { " + command + "; } 2>&1").c_str(), "r");
  std::array<char, 4096> buffer{};
  std::string output;
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    output += buffer.data();
  }
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

}  // namespace minwm::testing
