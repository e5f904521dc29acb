#pragma once
// What the tests of `minwm data …` share: running it and looking into what it left.

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "tests/apps/kill.h"
#include "tests/apps/shell.h"
#include "tests/apps/store_states.h"
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

inline json inspect(const fs::path& path, const std::string& more = "") {
  const Outcome outcome = shell(kProgram + " data inspect --json " + more + path.string());
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return json::parse(outcome.output.substr(outcome.output.find('{')));  // progress comes first
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
