// `minwm train` as a user runs it: the real program, also when it is stopped, killed or fed damaged
// files.

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "tests/apps/shell.h"
#include "tests/core/temporary_folder.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::shell;
using ::testing::StartsWith;
using testing::TemporaryFolder;
using Clock = std::chrono::steady_clock;

const std::string kProgram = MINWM_BINARY_DIR "/minwm";
const std::string kLauncher = LAUNCHER;

/// A codec and a store of small clips, made once per process.
struct SmallData {
  TemporaryFolder folder;
  std::string codec = (folder / "codec.safetensors").string();
  std::string store = (folder / "worlds.h5").string();
  SmallData() {
    const std::string size = " --width 32 --height 32 --samples 1 ";
    const Outcome fitted = shell(kProgram + " data fit-codec --worlds 6 --check_worlds 1" + size +
                                 "--output " + codec);
    EXPECT_EQ(fitted.code, 0) << fitted.output;
    const Outcome rendered = shell(kProgram + " data synth --worlds 4 --latent_frames 8" + size +
                                   "--codec " + codec + " --store " + store);
    EXPECT_EQ(rendered.code, 0) << rendered.output;
  }
};

SmallData& small_data() {
  static SmallData data;
  return data;
}

class TrainCommand : public ::testing::Test {
 protected:
  std::string run_folder() const { return (folder_ / "run").string(); }
  /// The recipe on the small data, with few and small steps.
  std::string arguments(const std::string& more = "",
                        const std::string& recipe = "bidirectional") const {
    const auto& data = small_data();
    return fmt::format(
        "train --config {}/recipes/wan-tiny/{}.ini --data.stores {} --data.codec {} "
        "--data.eval_store {} "
        "--train.global_batch 2 --train.steps 3 --eval.clips 3 --output.dir {} {}",
        MINWM_SOURCE_DIR, recipe, data.store, data.codec, data.store, run_folder(), more);
  }
  Outcome train(const std::string& more = "", const std::string& recipe = "bidirectional") const {
    return shell(kProgram + " " + arguments(more, recipe));
  }
  std::vector<json> lines() const {
    std::ifstream in(folder_ / "run" / "metrics.jsonl");
    std::vector<json> found;
    for (std::string line; std::getline(in, line);) {
      found.push_back(json::parse(line));
    }
    return found;
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> found;
    for (const auto& line : lines()) {
      found.push_back(line["step"]);
    }
    return found;
  }
  /// Exit code 2, one line that says all of `texts`.
  static void expect_refused(const Outcome& outcome, const std::vector<std::string>& texts) {
    EXPECT_EQ(outcome.code, kExitBadInput) << outcome.output;
    EXPECT_THAT(outcome.output, StartsWith("minwm: error: "));
    EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
    for (const auto& text : texts) {
      EXPECT_THAT(outcome.output, HasSubstr(text));
    }
  }

  TemporaryFolder folder_;
};

TEST_F(TrainCommand, TrainsFromTheRecipeAndLeavesEverything) {
  const Outcome outcome = train();
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("2 clips per step = 1 data rank(s) x 1 micro-batch(es) of 2"),
                    HasSubstr("3/3 steps"), ContainsRegex("b?float(32|16) on cpu")));
  EXPECT_THAT(steps(), ElementsAre(1, 2, 3));
  const json last = lines().back();
  for (const char* const key : {"step", "loss", "grad_norm", "lr", "seconds", "tokens_per_second",
                                "data_wait", "camera_gap", "gap_right", "gap_wrong", "gap_copy"}) {
    EXPECT_TRUE(last.contains(key) && last[key].is_number()) << key;
  }
  EXPECT_FALSE(lines().front().contains("camera_gap"));
  EXPECT_NEAR(last["camera_gap"].get<double>(),
              last["gap_right"].get<double>() - last["gap_wrong"].get<double>(), 1e-9);
  const fs::path run = run_folder(), step = run / "checkpoints" / "step-000003";
  for (const char* const file : {"state.h5", "config.ini", "codec.safetensors"}) {
    EXPECT_TRUE(fs::is_regular_file(step / file)) << file;
  }
  EXPECT_EQ(read_file(run / "config.ini"), read_file(step / "config.ini"));
  EXPECT_THAT(read_file(run / "config.ini"),
              AllOf(HasSubstr("[optimizer]\nname = muon"), HasSubstr("steps = 3")));
  const auto info = json::parse(
      hdf5::File(step / "state.h5", hdf5::File::Mode::kReadOnly).read_string("/", "info"));
  EXPECT_EQ(info["stage"], "bidirectional");
  EXPECT_EQ(info["sampler"], "euler");
  EXPECT_EQ(info["shift"], 3);
  EXPECT_EQ(info["latent_frames"], 8);
  EXPECT_EQ(info["latent_height"], 4);
  EXPECT_GT(info["fx"], 0.4);
}

TEST_F(TrainCommand, DryRunShowsThePlanAndLeavesNothing) {
  const Outcome outcome =
      shell(fmt::format("{} train --config {}/recipes/wan-tiny/teacher-forcing.ini --train.steps 9 "
                        "--train.micro_batch 2 "
                        "--output.dir {} --dry-run",
                        kProgram, MINWM_SOURCE_DIR, run_folder()));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("replicate 1 x shard 1 x context 1"),
                    HasSubstr("wan-tiny, 1877184 parameters"),
                    HasSubstr("8 clips per step = 1 data rank(s) x 4 micro-batch(es) of 2"),
                    HasSubstr("step_list = 1000,750,500,250"),
                    HasSubstr("teacher-forcing, 9 steps, 72 clips")));
  EXPECT_EQ(folder_.entries(), 0);
}

TEST_F(TrainCommand, TheTwoStagesFollowEachOther) {
  ASSERT_EQ(train("--train.steps 1").code, 0);
  const std::string first = run_folder(), second = (folder_ / "second").string();
  const Outcome outcome =
      train("--train.steps 2 --init " + first + " --output.dir " + second, "teacher-forcing");
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("weights of " + first));
  const auto info = json::parse(
      hdf5::File(fs::path(second) / "checkpoints/step-000002/state.h5", hdf5::File::Mode::kReadOnly)
          .read_string("/", "info"));
  EXPECT_EQ(info["sampler"], "renoise");
  EXPECT_EQ(info["step_list"], json({1000, 750, 500, 250}));
  EXPECT_EQ(info["chunk_frames"], 4);
}

TEST_F(TrainCommand, ContinuesWhereItWas) {
  ASSERT_EQ(train("--train.steps 2").code, 0);
  expect_refused(train("--resume none"),
                 {run_folder(), "holds a run already (step-000002)", "--resume auto"});
  const Outcome resumed = train("--train.steps 4 --resume auto");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_THAT(resumed.output, HasSubstr("continuing after step 2"));
  const std::string step = run_folder() + "/checkpoints/step-000004";
  const Outcome from_step = train("--train.steps 5 --resume " + step);
  ASSERT_EQ(from_step.code, 0) << from_step.output;
  EXPECT_THAT(from_step.output, HasSubstr("continuing after step 4"));
  EXPECT_THAT(steps(), ElementsAre(1, 2, 3, 4, 5));
  expect_refused(train("--model wan-1.3b"), {"holds model 'wan-tiny', this run trains 'wan-1.3b'"});
  expect_refused(train("", "teacher-forcing"), {"was saved by stage 'bidirectional'"});
  expect_refused(train("--resume " + (folder_ / "nowhere").string()), {"nowhere: does not exist"});
}

TEST_F(TrainCommand, WrongUseIsOneLine) {
  std::ofstream(folder_ / "typo.ini")
      << "stage = bidirectional\n[optimizer]\nlearnig_rate = 1\nclpi = 1\n";
  expect_refused(shell(kProgram + " train --config " + (folder_ / "typo.ini").string()),
                 {"typo.ini", "learnig_rate"});
  std::ofstream(folder_ / "typo.ini") << "stage = bidirectional\n[optimizer]\nclpi = 1\n";
  expect_refused(shell(kProgram + " train --config " + (folder_ / "typo.ini").string()),
                 {"typo.ini:3", "optimizer.clpi", "optimizer.clip"});
  expect_refused(train("--stage bidirectionel"),
                 {"--stage bidirectionel: expected bidirectional", "did you mean bidirectional?"});
  expect_refused(train("--model wan-tinny"), {"wan-tinny", "wan-tiny"});
  expect_refused(train("--train.micro_batch 3"), {"train.micro_batch 3", "2 clips"});
  expect_refused(train("--parallel.context 2"), {"parallel.context 2"});
  expect_refused(train("--data.stores " + (folder_ / "missing.h5").string()), {"missing.h5"});
  expect_refused(train("--data.codec " + (folder_ / "missing.safetensors").string()),
                 {"missing.safetensors: does not exist"});
  expect_refused(train("--init " + folder_.path().string()), {"holds no complete checkpoint"});
  expect_refused(train("--teacher_forcing.chunk_frames 3", "teacher-forcing"),
                 {small_data().store, "clips of 8 latents", "teacher_forcing.chunk_frames 3"});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}),
            fs::exists(run_folder()) ? 2 : 1);
}

TEST_F(TrainCommand, RefusesAStoreOfAnotherCodec) {
  const std::string other = (folder_ / "other.safetensors").string();
  ASSERT_EQ(
      shell(kProgram +
            " data fit-codec --worlds 3 --check_worlds 1 --width 32 --height 32 --output " + other)
          .code,
      0);
  expect_refused(train("--data.codec " + other),
                 {small_data().store, "was encoded by codec 'analytic-", other});
}

TEST_F(TrainCommand, ADivergedRunEndsWithOneErrorThatNamesTheStep) {
  const Outcome outcome = shell(
      kLauncher + " -n 2 " + kProgram + " " +
      arguments("--optimizer.name adamw --optimizer.lr 1e30 --optimizer.warmup 0 --train.steps 9"));
  EXPECT_EQ(outcome.code, kExitFailure) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("training diverged"));
  EXPECT_EQ(outcome.output.find("training diverged"), outcome.output.rfind("training diverged"))
      << outcome.output;
}

TEST_F(TrainCommand, ADamagedStoreOnOneRankEndsAllWithItsMessage) {
  const fs::path damaged = folder_ / "damaged.h5";
  fs::copy_file(small_data().store, damaged);
  {
    hdf5::File file(damaged, hdf5::File::Mode::kReadWrite);
    for (const auto& name : file.datasets()) {
      if (name.find("latents") != std::string::npos) {
        at::Tensor row = file.read_rows(name, 5, 1);
        row.view(-1)[3] += 1;
        file.write_rows(name, 5, row);
      }
    }
    file.close();
  }
  const auto started = Clock::now();
  const Outcome outcome = shell(kLauncher + " -n 2 " + kProgram + " " +
                                arguments("--train.steps 8 --data.stores " + damaged.string()));
  EXPECT_LT(Clock::now() - started, std::chrono::seconds(30));
  EXPECT_EQ(outcome.code, kExitBadInput) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr(damaged.string()), HasSubstr("checksum")));
}

/// A job of two ranks in the background.
class Job {
 public:
  /// What it prints goes into the file `output`.
  Job(const std::string& command, const std::string& output) {
    pid_ = ::fork();
    if (pid_ == 0) {
      const int file = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(file, STDOUT_FILENO);
      ::dup2(file, STDERR_FILENO);
      ::setenv("OMP_NUM_THREADS", "1", 1);
      ::execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
      ::_exit(127);
    }
  }
  ~Job() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  /// Process ids of the ranks: the children of mpirun that are our program.
  std::vector<pid_t> ranks() const {
    std::vector<pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::ifstream in(entry.path() / "stat");
      pid_t id = 0, parent = 0;
      std::string name, state;
      if (in >> id >> name >> state >> parent && parent == pid_ && name == "(minwm)") {
        found.push_back(id);
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  /// To mpirun itself.
  void signal(int number) const { ::kill(pid_, number); }
  /// The exit code; -1 if it does not end in time.
  int wait(std::chrono::seconds limit) {
    const auto until = Clock::now() + limit;
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (Clock::now() > until) {
        return -1;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

class TrainingJob : public TrainCommand {
 protected:
  /// Starts (or continues) a long run of two ranks and waits for its first step.
  std::unique_ptr<Job> start(const std::string& mesh = "") {
    const auto before = steps().size();
    auto job = std::make_unique<Job>(kLauncher + " -n 2 " + kProgram + " " +
                                         arguments("--train.steps 100000 --eval.every 0 " + mesh),
                                     output());
    const auto until = Clock::now() + std::chrono::seconds(60);
    while (steps().size() <= before && Clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_GT(steps().size(), before) << "no step in a minute: " << printed();
    return job;
  }
  std::string output() const { return (folder_ / "output").string(); }
  std::string printed() const { return read_file(output()); }
};

TEST_F(TrainingJob, ASignalToOneRankStopsAllAfterACheckpoint) {
  // One run, each leg on another mesh.
  const std::vector<std::pair<int, std::string>> legs = {
      {SIGUSR1, ""}, {SIGTERM, "--parallel.shard 2"}, {SIGUSR1, "--parallel.context 2"}};
  for (const auto& [signal, mesh] : legs) {
    const auto job = start(mesh);
    const auto ranks = job->ranks();
    ASSERT_EQ(ranks.size(), 2U);
    ::kill(ranks[1], signal);
    EXPECT_EQ(job->wait(std::chrono::seconds(60)), kExitStopped) << printed();
    EXPECT_TRUE(fs::exists(fs::path(run_folder()) / "checkpoints" /
                           fmt::format("step-{:06}", steps().back()) / "state.h5"));
  }
  // All legs, one row of steps.
  for (size_t i = 0; i < steps().size(); ++i) {
    EXPECT_EQ(steps()[i], static_cast<int64_t>(i) + 1);
  }
}

TEST_F(TrainingJob, ASignalToTheLauncherReachesTheRanks) {
  const auto job = start("--parallel.shard 2");
  job->signal(SIGUSR1);
  EXPECT_EQ(job->wait(std::chrono::seconds(60)), kExitStopped) << printed();
  EXPECT_TRUE(fs::exists(fs::path(run_folder()) / "checkpoints" /
                         fmt::format("step-{:06}", steps().back()) / "state.h5"));
}

TEST_F(TrainingJob, ARankThatHangsIsNamedByTheOthersAndTheJobEnds) {
  const auto job = start("--parallel.shard 2 --parallel.timeout 3");
  const auto ranks = job->ranks();
  ASSERT_EQ(ranks.size(), 2U);
  ::kill(ranks[1], SIGSTOP);
  const auto stopped = Clock::now();
  EXPECT_EQ(job->wait(std::chrono::seconds(30)), kExitTimeout) << printed();
  EXPECT_LT(Clock::now() - stopped, std::chrono::seconds(15));
  // Which rank, in which call, from which line of the program.
  EXPECT_THAT(printed(), AllOf(HasSubstr("\"rank\":0"), HasSubstr("rank 1"), HasSubstr("seq"),
                               HasSubstr(".cpp:")));
}

TEST_F(TrainingJob, AKilledRankEndsTheJobInSeconds) {
  const auto job = start();
  const auto ranks = job->ranks();
  ASSERT_EQ(ranks.size(), 2U);
  const auto killed = Clock::now();
  ::kill(ranks[1], SIGKILL);
  const int code = job->wait(std::chrono::seconds(30));
  EXPECT_GT(code, 0) << "the job went on";
  EXPECT_LT(Clock::now() - killed, std::chrono::seconds(30));
}

}  // namespace
}  // namespace minwm
