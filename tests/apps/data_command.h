#pragma once
// What the tests of `minwm data …` share: running it, killing it half way, looking into what it
// left.

#include <array>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "tests/apps/shell.h"
#include "tests/core/temporary_folder.h"

namespace minwm::testing {

namespace fs = std::filesystem;
using nlohmann::json;

inline const std::string kProgram = MINWM_BINARY_DIR "/minwm";
inline const std::string kLauncher = LAUNCHER;
/// Small enough for a core to render in milliseconds.
inline const std::string kSmall = " --width 32 --height 32 --samples 1 --latent_frames 3";

inline Outcome data(const std::string& arguments, int ranks = 1) {
  const std::string launcher =
      ranks > 1 ? fmt::format("{} -n {} ", kLauncher, ranks) : std::string();
  return shell(launcher + kProgram + " data " + arguments);
}

inline void expect_done(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0) << outcome.output;
}

/// Exit code 2 and one line that says `text`; nothing at `path`.
inline void expect_refused(const Outcome& outcome, const std::string& text,
                           const fs::path& path = {}) {
  EXPECT_EQ(outcome.code, kExitBadInput) << outcome.output;
  EXPECT_THAT(outcome.output, ::testing::AllOf(::testing::StartsWith("minwm: error: "),
                                               ::testing::HasSubstr(text)));
  EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
  EXPECT_TRUE(path.empty() || !fs::exists(path)) << path;
}

/// A codec that all tests share, fitted once.
inline const std::string& codec_file() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    const std::string file = (folder / "codec.safetensors").string();
    const Outcome fit =
        data("fit-codec --worlds 12 --check_worlds 2 --patch 4 --channels 8 --output " + file +
             " --width 32 --height 32 --samples 1");
    EXPECT_THAT(fit.output, ::testing::AllOf(::testing::HasSubstr(file + ": analytic-4x4x8-"),
                                             ::testing::HasSubstr("held-out PSNR "),
                                             ::testing::HasSubstr("on 2 clips of 29 frames")));
    expect_done(fit);
    return file;
  }();
  return path;
}

inline std::string with_codec(const std::string& arguments) {
  return arguments + " --codec " + codec_file();
}

/// The slots of a store (or of its .partial) in each state: nothing yet, done, failed.
inline std::array<int64_t, 3> states(const fs::path& path) {
  const hdf5::File file(path, hdf5::File::Mode::kReadOnly);
  const at::Tensor state = file.read("state");
  std::array<int64_t, 3> counts{};
  for (int64_t i = 0; i < state.size(0); ++i) {
    ++counts[state[i].item<uint8_t>()];
  }
  return counts;
}

/// Every dataset: samples, ids, cameras, checksums.
inline void expect_same_store(const fs::path& a, const fs::path& b) {
  const hdf5::File first(a, hdf5::File::Mode::kReadOnly), second(b, hdf5::File::Mode::kReadOnly);
  ASSERT_EQ(first.datasets(), second.datasets());
  for (const std::string& name : first.datasets()) {
    EXPECT_TRUE(at::equal(first.read(name), second.read(name))) << name;
  }
}

inline json inspect(const fs::path& path, const std::string& more = "") {
  const Outcome outcome = shell(kProgram + " data inspect --json " + more + path.string());
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return json::parse(outcome.output.substr(outcome.output.find('{')));  // progress comes first
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

/// True as soon as the store under construction holds `count` samples.
inline auto partial_holds(const fs::path& store, int64_t count) {
  return [=] {
    const fs::path partial = store.string() + ".partial";
    try {
      return fs::exists(partial) && states(partial)[1] >= count;
    } catch (const Error&) {
      return false;  // not yet complete
    }
  };
}

inline std::vector<std::string> words(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

// ---- fit-codec

/// Eight clips of one world each, rendered once.
inline const fs::path& eight_clips() {
  static const TemporaryFolder folder;
  static const fs::path path = [] {
    expect_done(data("synth --worlds 8 --paths_per_world 1" + kSmall + " --output " +
                     (folder / "clips").string()));
    return folder / "clips";
  }();
  return path;
}

inline std::string encode(const fs::path& input, const fs::path& output) {
  return with_codec("encode --width 32 --height 32 --input " + input.string() + " --output " +
                    output.string());
}

}  // namespace minwm::testing
