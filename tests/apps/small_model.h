#pragma once
// Runs `minwm` as a user does, and trains the smallest models it can be run on.

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "tests/core/temporary_folder.h"

namespace minwm::testing {

struct Outcome {
  int code;
  std::string out, err;  ///< stdout, stderr
};

inline Outcome run_minwm(const std::string& arguments, int ranks = 1) {
  static const TemporaryFolder folder;
  const std::string errors = (folder / "stderr").string();
  const std::string launcher = ranks > 1 ? fmt::format("{} -n {} ", LAUNCHER, ranks) : "";
  FILE* const pipe = ::popen(fmt::format("OMP_NUM_THREADS=1 {}{}/minwm {} 2>{}", launcher,
                                         MINWM_BINARY_DIR, arguments, errors)
                                 .c_str(),
                             "r");
  require(pipe != nullptr, "cannot run {}/minwm", MINWM_BINARY_DIR);
  std::array<char, 4096> buffer{};
  std::string out;
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    out += buffer.data();
  }
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, out, read_file(errors)};
}

/// Exit code 2, one line on stderr that says `text`, nothing on stdout.
inline void expect_refused(const Outcome& outcome, const std::string& text) {
  EXPECT_EQ(outcome.code, kExitBadInput) << outcome.err;
  EXPECT_THAT(outcome.err, ::testing::AllOf(::testing::StartsWith("minwm: error: "),
                                            ::testing::HasSubstr(text)));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

/// A codec and one untrained model of each stage: 8 latents of 32x32 pixels. Made once per process,
/// about 2 seconds.
class SmallModels {
 public:
  static const SmallModels& get() {
    static const SmallModels models;
    return models;
  }
  std::string codec() const { return (folder_ / "codec.safetensors").string(); }
  /// The run folder of stage "bidirectional" or "teacher-forcing".
  std::string run(const std::string& stage) const { return (folder_ / stage).string(); }
  /// The run folder of another model, trained for two steps: what starts at zero no longer is.
  std::string run_of(const std::string& model, const std::string& stage) const {
    const auto output = folder_ / (model + "-" + stage);
    if (!std::filesystem::exists(output)) {
      done(training(stage, output.string(), 2) + " --optimizer.lr 1e-2 --model " + model);
    }
    return output.string();
  }
  std::filesystem::path step(const std::string& stage) const {
    return folder_ / stage / "checkpoints" / "step-000001";
  }

 private:
  SmallModels() {
    const std::string size = " --width 32 --height 32 --samples 1";
    done("data fit-codec --worlds 12 --check_worlds 1 --output " + codec() + size);
    done("data synth --worlds 1 --latent_frames 8 --codec " + codec() + " --store " + store() +
         size);
    for (const char* stage : {"bidirectional", "teacher-forcing"}) {
      done(training(stage, run(stage), 1));
    }
  }
  std::string store() const { return (folder_ / "store.h5").string(); }
  std::string training(const std::string& stage, const std::string& output, int steps) const {
    return fmt::format(
        "train --stage {} --data.stores {} --data.codec {} --output.dir {} --train.steps {} "
        "--train.global_batch 1 --train.threads 1",
        stage, store(), codec(), output, steps);
  }
  static void done(const std::string& arguments) {
    const Outcome outcome = run_minwm(arguments);
    require(outcome.code == kExitDone, "minwm {}: {}", arguments, outcome.err);
  }
  TemporaryFolder folder_;
};

}  // namespace minwm::testing
