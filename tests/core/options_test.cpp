#include "minwm/core/options.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temporary_folder.h"

namespace minwm {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

/// A program with one option of each type.
struct Program {
  int64_t seed = 1;
  double lr = 2e-6;
  bool dry_run = false;
  std::string prompt = "a room";
  std::string stage = "bidirectional";
  std::vector<int64_t> sizes = {8, 16};
  std::vector<double> betas;
  std::vector<std::string> names;
  std::vector<std::string> files;
  Options options{"minwm test", "Tests options."};

  Program() {
    options.add("seed", &seed, "random seed");
    options.add("dry_run", &dry_run, "print the configuration only");
    options.add("prompt", &prompt, "what to show");
    options.add_choice("stage", &stage, {"bidirectional", "teacher_forcing"}, "training stage");
    options.add("optimizer.lr", &lr, "learning rate");
    options.add("optimizer.betas", &betas, "moment decays");
    options.add("model.sizes", &sizes, "widths");
    options.add("model.names", &names, "layer names");
    options.positional("FILE", &files, 2, "input files");
  }

  bool parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "test");
    return options.parse(static_cast<int>(arguments.size()), arguments.data());
  }
};

std::string write(const TemporaryFolder& folder, const std::string& name, const std::string& text) {
  std::ofstream(folder / name) << text;
  return folder / name;
}

TEST(Options, TheCommandLineSetsEveryType) {
  Program p;
  EXPECT_TRUE(p.parse({"--seed=-7", "--optimizer.lr", "1e-3", "--dry-run", "--prompt", "",
                       "--stage", "teacher_forcing", "--model.sizes", "1, 2,3",
                       "--optimizer.betas=0.9,0.95", "--model.names", "a,b", "in.mp4"}));
  EXPECT_EQ(p.seed, -7);
  EXPECT_EQ(p.lr, 1e-3);
  EXPECT_TRUE(p.dry_run);
  EXPECT_EQ(p.prompt, "");
  EXPECT_EQ(p.stage, "teacher_forcing");
  EXPECT_THAT(p.sizes, ElementsAre(1, 2, 3));
  EXPECT_THAT(p.betas, ElementsAre(0.9, 0.95));
  EXPECT_THAT(p.names, ElementsAre("a", "b"));
  EXPECT_THAT(p.files, ElementsAre("in.mp4"));
}

TEST(Options, NegativeNumbersFollowTheirFlagWithoutEquals) {
  Program p;
  EXPECT_TRUE(p.parse({"--seed", "-5", "--optimizer.lr", "-0.5"}));
  EXPECT_EQ(p.seed, -5);
  EXPECT_EQ(p.lr, -0.5);
}

TEST(Options, SwitchesTakeAnOptionalValue) {
  for (const auto& [arguments, expected] :
       std::vector<std::pair<std::vector<const char*>, bool>>{{{"--dry-run"}, true},
                                                              {{"--dry_run", "true"}, true},
                                                              {{"--dry-run", "false"}, false},
                                                              {{"--dry_run=0"}, false},
                                                              {{"--dry-run", "x.mp4"}, true}}) {
    Program p;
    p.dry_run = !expected;
    EXPECT_TRUE(p.parse(arguments));
    EXPECT_EQ(p.dry_run, expected) << arguments.back();
  }
}

TEST(Options, TheCommandLineWinsOverFilesAndLaterFilesOverEarlier) {
  const TemporaryFolder folder;
  const auto first = write(folder, "a.ini", "seed = 10\nprompt = first\n[optimizer]\nlr = 1\n");
  const auto second = write(folder, "b.ini", "seed = 20\nprompt = second\n");
  Program p;
  EXPECT_TRUE(p.parse({"--seed", "30", "--config", first.c_str(), "--config", second.c_str()}));
  EXPECT_EQ(p.seed, 30);
  EXPECT_EQ(p.prompt, "second");
  EXPECT_EQ(p.lr, 1);
  EXPECT_TRUE(p.options.given("optimizer.lr"));
  EXPECT_FALSE(p.options.given("model.sizes"));
  p.options.read_ini(first);
  EXPECT_EQ(p.seed, 30) << "a file read later must not undo the command line";
  EXPECT_EQ(p.prompt, "first");
}

TEST(Options, IniFilesKnowCommentsQuotesAndIncludes) {
  const TemporaryFolder folder;
  write(folder, "base.ini", "seed = 3\nprompt = base\n");
  const auto file =
      write(folder, "top.ini",
            "# comment\n; another\ninclude = base.ini\n"
            "prompt = \"a; b # \\\"c\\\"\" ; tail\r\n\n[ optimizer ]\nlr=0.5 # half\n");
  Program p;
  p.options.read_ini(file);
  EXPECT_EQ(p.seed, 3);
  EXPECT_EQ(p.prompt, "a; b # \"c\"");
  EXPECT_EQ(p.lr, 0.5);
}

TEST(Options, TheResolvedConfigurationReadsBackUnchanged) {
  const TemporaryFolder folder;
  Program written;
  written.seed = -3;
  written.lr = 0.1;
  written.prompt = " \"quoted\" #1;\nline \\n two ";
  written.betas = {0.9, 1.0 / 3};
  written.sizes = {};
  written.names = {"x", "y"};
  const std::string text = written.options.to_ini();
  Program read;
  read.sizes = {99};
  read.options.read_ini(write(folder, "config.ini", text));
  EXPECT_EQ(read.prompt, written.prompt);
  EXPECT_EQ(read.betas, written.betas);
  EXPECT_TRUE(read.sizes.empty());
  EXPECT_EQ(read.options.to_ini(), text);
  EXPECT_LT(text.find("[model]"), text.find("[optimizer]"));
}

TEST(Options, AnUnknownOptionNamesTheNearestKnownOne) {
  Program p;
  EXPECT_EQ(error_of([&] {
              (void)p.parse({"--optimizer.lrr", "1"});
            }),
            "unknown option --optimizer.lrr; did you mean --optimizer.lr?");
  EXPECT_EQ(error_of([&] {
              (void)p.parse({"--lr", "1"});
            }),
            "unknown option --lr; did you mean --optimizer.lr?");
  EXPECT_THAT(error_of([&] { (void)p.parse({"--zzzzzz=1"}); }), HasSubstr("--help lists"));
}

TEST(Options, ErrorsInFilesNameFileAndLine) {
  struct BadFile {
    const char* text;
    const char* expected;
  };
  for (const auto& bad : std::initializer_list<BadFile>{
           {"seed = 1\n[optimizer]\nbeta = 2\n",
            "bad.ini:3: unknown key 'optimizer.beta'; did you mean optimizer.betas?"},
           {"\nseed = soon\n", "bad.ini:2: seed = soon: expected a whole number"},
           {"seed = 1\nseed = 2\n", "bad.ini:2: seed is given twice, first in line 1"},
           {"[optimizer\n", "bad.ini:1: '[optimizer' is no [section]"},
           {"just words\n", "bad.ini:1: 'just words': expected [section] or key = value"},
           {"prompt = \"open\n", "bad.ini:1: the closing quote is missing"},
           {"seed = 1\ninclude = x.ini\n", "bad.ini:2: include must stand before"},
           {"include = bad.ini\n", "includes go in a circle"},
           {"include = missing.ini\n", "missing.ini: No such file or directory"}}) {
    const TemporaryFolder folder;
    const auto file = write(folder, "bad.ini", bad.text);
    Program p;
    EXPECT_THAT(error_of([&] { p.options.read_ini(file); }), HasSubstr(bad.expected)) << bad.text;
  }
}

TEST(Options, WrongTypesNameKeyValueAndExpectation) {
  struct Bad {
    std::vector<const char*> arguments;
    const char* expected;
  };
  for (const auto& bad : std::initializer_list<Bad>{
           {{"--seed", "1.5"}, "--seed 1.5: expected a whole number"},
           {{"--seed", "99999999999999999999"}, "expected a whole number"},
           {{"--seed="}, "--seed : expected a whole number"},
           {{"--optimizer.lr", "fast"}, "--optimizer.lr fast: expected a number"},
           {{"--optimizer.lr", "nan"}, "--optimizer.lr nan: expected a number"},
           {{"--dry-run=maybe"}, "--dry_run maybe: expected true or false"},
           {{"--stage", "dmd"}, "--stage dmd: expected one of bidirectional, teacher_forcing"},
           {{"--model.sizes", "1,,2"}, "expected a comma separated list, each a whole number"},
           {{"--model.sizes", "1,x"}, "--model.sizes 1,x: expected a comma separated list"},
           {{"--seed"}, "--seed: a value is missing; expected a whole number"},
           {{"a", "b", "c"}, "unexpected argument 'c': at most 2 FILE expected"},
           {{"--config", "nowhere.ini"}, "cannot read nowhere.ini: No such file or directory"}}) {
    Program p;
    EXPECT_THAT(error_of([&] { (void)p.parse(bad.arguments); }), HasSubstr(bad.expected));
  }
}

TEST(Options, ArgumentsWithoutPositionalsAreRefused) {
  Options options("minwm test", "Takes none.");
  const char* arguments[] = {"test", "stray"};
  EXPECT_THAT(error_of([&] { (void)options.parse(2, arguments); }),
              HasSubstr("unexpected argument 'stray'"));
}

TEST(Options, HelpListsEveryOptionWithItsDefault) {
  Program p;
  ::testing::internal::CaptureStdout();
  EXPECT_FALSE(p.parse({"--seed", "5", "--help"}));
  const std::string help = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(p.seed, 1);
  EXPECT_THAT(help, HasSubstr("--optimizer.lr X"));
  EXPECT_THAT(help, HasSubstr("learning rate [2e-06]"));
  EXPECT_THAT(help, HasSubstr("--stage bidirectional|teacher_forcing"));
}

TEST(NearestName, FindsTyposButNotStrangers) {
  const std::vector<std::string> known = {"train", "generate", "data synth"};
  EXPECT_EQ(nearest_name("trian", known), "train");
  EXPECT_EQ(nearest_name("genrate", known), "generate");
  EXPECT_EQ(nearest_name("synth", known), "data synth");
  EXPECT_EQ(nearest_name("weather", known), "");
}

}  // namespace
}  // namespace minwm
