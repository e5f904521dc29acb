#pragma once
// A program killed half way, with all its ranks.

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace minwm::testing {

namespace fs = std::filesystem;

inline std::vector<std::string> words(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

/// The living processes of a session (mpirun gives every rank a process group of its own), without
/// zombies that wait for their parent.
inline std::vector<pid_t> processes_of_session(pid_t session) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const pid_t process = std::atoi(entry.path().filename().c_str());
    std::error_code zombie;
    const fs::path program = fs::read_symlink(entry.path() / "exe", zombie);
    if (process > 0 && ::getsid(process) == session && !program.empty()) {
      found.push_back(process);
    }
  }
  return found;
}

/// Starts a command in a session of its own and kills all of it (kill -9) as soon as `half_way`
/// holds. False if the command ended before that.
template <class HalfWay>
bool kill_when(const std::vector<std::string>& command, const HalfWay& half_way) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 1);
    ::dup2(null, 2);
    std::vector<char*> arguments;
    for (const std::string& word : command) {
      arguments.push_back(const_cast<char*>(word.c_str()));
    }
    arguments.push_back(nullptr);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  int status = 0;
  while (!half_way()) {
    if (::waitpid(child, &status, WNOHANG) == child) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (const pid_t process : processes_of_session(child)) {
    ::kill(process, SIGKILL);
  }
  ::waitpid(child, &status, 0);
  // Ranks that lost their mpirun belong to init now: wait until they are gone.
  while (!processes_of_session(child).empty()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace minwm::testing
