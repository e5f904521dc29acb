// `minwm data …` as a user runs it: the real program, in folders of its own.

#include <array>
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

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "tests/core/temporary_folder.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using testing::TemporaryFolder;

const std::string kProgram = MINWM_BINARY_DIR "/minwm";
const std::string kLauncher = LAUNCHER;
/// Small enough for a core to render in milliseconds.
const std::string kSmall = " --width 32 --height 32 --samples 1 --latent_frames 3";

struct Outcome {
  int code;
  std::string output;  ///< stdout and stderr
};

Outcome shell(const std::string& command) {
  FILE* const pipe = ::popen(("OMP_NUM_THREADS=1 " + command + " 2>&1").c_str(), "r");
  std::array<char, 4096> buffer{};
  std::string output;
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
    output += buffer.data();
  }
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

Outcome data(const std::string& arguments, int ranks = 1) {
  const std::string launcher =
      ranks > 1 ? fmt::format("{} -n {} ", kLauncher, ranks) : std::string();
  return shell(launcher + kProgram + " data " + arguments);
}

void expect_done(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0) << outcome.output;
}

/// Exit code 2 and one line that says `text`; nothing at `path`.
void expect_refused(const Outcome& outcome, const std::string& text, const fs::path& path = {}) {
  EXPECT_EQ(outcome.code, kExitBadInput) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(StartsWith("minwm: error: "), HasSubstr(text)));
  EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
  EXPECT_TRUE(path.empty() || !fs::exists(path)) << path;
}

/// A codec that all tests share, fitted once.
const std::string& codec_file() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    const std::string file = (folder / "codec.safetensors").string();
    const Outcome fit =
        data("fit-codec --worlds 12 --check_worlds 2 --patch 4 --channels 8 --output " + file +
             " --width 32 --height 32 --samples 1");
    EXPECT_THAT(fit.output,
                AllOf(HasSubstr(file + ": analytic-4x4x8-"), HasSubstr("held-out PSNR "),
                      HasSubstr("on 2 clips of 29 frames")));
    expect_done(fit);
    return file;
  }();
  return path;
}

std::string with_codec(const std::string& arguments) {
  return arguments + " --codec " + codec_file();
}

/// The slots of a store (or of its .partial) in each state: nothing yet, done, failed.
std::array<int64_t, 3> states(const fs::path& path) {
  const hdf5::File file(path, hdf5::File::Mode::kReadOnly);
  const at::Tensor state = file.read("state");
  std::array<int64_t, 3> counts{};
  for (int64_t i = 0; i < state.size(0); ++i) {
    ++counts[state[i].item<uint8_t>()];
  }
  return counts;
}

/// Every dataset: samples, ids, cameras, checksums.
void expect_same_store(const fs::path& a, const fs::path& b) {
  const hdf5::File first(a, hdf5::File::Mode::kReadOnly), second(b, hdf5::File::Mode::kReadOnly);
  ASSERT_EQ(first.datasets(), second.datasets());
  for (const std::string& name : first.datasets()) {
    EXPECT_TRUE(at::equal(first.read(name), second.read(name))) << name;
  }
}

json inspect(const fs::path& path, const std::string& more = "") {
  const Outcome outcome = shell(kProgram + " data inspect --json " + more + path.string());
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return json::parse(outcome.output.substr(outcome.output.find('{')));  // progress comes first
}

/// The living processes of a session (mpirun gives every rank a process group of its own), without
/// zombies that wait for their parent.
std::vector<pid_t> processes_of_session(pid_t session) {
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
auto partial_holds(const fs::path& store, int64_t count) {
  return [=] {
    const fs::path partial = store.string() + ".partial";
    try {
      return fs::exists(partial) && states(partial)[1] >= count;
    } catch (const Error&) {
      return false;  // not yet complete
    }
  };
}

std::vector<std::string> words(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

// ---- fit-codec

TEST(DataFitCodec, TheSameWorldsGiveTheSameFileOnAnyNumberOfThreads) {
  const TemporaryFolder folder;
  const std::string file = (folder / "again.safetensors").string();
  const std::string arguments =
      "fit-codec --worlds 12 --check_worlds 0 --patch 4 --channels 8 --width 32 --height 32 "
      "--samples 1";
  expect_done(
      shell("env OMP_NUM_THREADS=2 " + kProgram + " data " + arguments + " --output " + file));
  EXPECT_EQ(read_file(file), read_file(codec_file()));
  const json about = inspect(file);
  EXPECT_EQ(about["kind"], "codec");
  EXPECT_THAT(about["codec"].get<std::string>(), StartsWith("analytic-4x4x8-"));
}

TEST(DataFitCodec, RefusesBadOptions) {
  const TemporaryFolder folder;
  const fs::path file = folder / "codec.safetensors";
  const std::string to = " --output " + file.string();
  expect_refused(data("fit-codec --worlds 0" + to), "--worlds 0", file);
  expect_refused(data("fit-codec --chanels 8" + to), "did you mean", file);
}

// ---- synth

TEST(DataSynth, TwoRanksMakeTheStoreOfOne) {
  const TemporaryFolder folder;
  const fs::path one = folder / "one.h5", two = folder / "two.h5";
  const std::string worlds = "synth --worlds 5 --first_seed 7" + kSmall;
  expect_done(data(with_codec(worlds + " --store " + one.string())));
  expect_done(data(with_codec(worlds + " --store " + two.string()), 2));
  expect_same_store(one, two);
  const json about = inspect(one, "--verify ");
  EXPECT_EQ(about["clips"], 10);
  EXPECT_EQ(about["missing"], 0);
  EXPECT_EQ(about["failed"], 0);
  EXPECT_EQ(about["latents"], json({3, 8, 8, 8}));
  EXPECT_EQ(about["text"], json({6, 32}));
  EXPECT_EQ(about["first"], "world-000007-0");
  EXPECT_EQ(about["last"], "world-000011-1");
  EXPECT_EQ(about["provenance"]["command"], "data synth");
  EXPECT_EQ(about["provenance"]["options"]["first_seed"], 7);
  EXPECT_NEAR(about["latent_rms"].get<double>(), 1, .5);
}

TEST(DataSynth, AKilledRunContinuesWithoutLossOrRepetition) {
  const TemporaryFolder folder;
  const fs::path whole = folder / "whole.h5", killed = folder / "killed.h5";
  const std::string worlds = with_codec("synth --worlds 60" + kSmall) + " --store ";
  expect_done(data(worlds + whole.string()));
  const std::string command = kLauncher + " -n 2 " + kProgram + " data " + worlds + killed.string();
  ASSERT_TRUE(kill_when(words(command), partial_holds(killed, 8))) << "it was done too soon";
  EXPECT_FALSE(fs::exists(killed));
  const auto left = states(killed.string() + ".partial");
  EXPECT_GE(left[1], 8);
  EXPECT_GT(left[0], 0) << "killed half way";
  const std::string unfinished = shell(kProgram + " data inspect " + killed.string()).output;
  EXPECT_THAT(unfinished, HasSubstr(fmt::format("missing          {}", left[0])));
  expect_done(data(worlds + killed.string(), 2));
  expect_same_store(whole, killed);
  EXPECT_FALSE(fs::exists(killed.string() + ".partial"));
}

TEST(DataSynth, AFinishedStoreStaysAsItIsAndOtherOptionsAreRefused) {
  const TemporaryFolder folder;
  const fs::path store = folder / "worlds.h5";
  const std::string worlds = with_codec("synth --worlds 2" + kSmall + " --store " + store.string());
  expect_done(data(worlds));
  const auto written = fs::last_write_time(store);
  expect_done(data(worlds));
  EXPECT_EQ(fs::last_write_time(store), written);
  expect_refused(data(worlds + " --style standard"), "style = \"detail\", now \"standard\"");
  expect_refused(data(worlds + " --worlds 3"), "worlds = 2, now 3");
  EXPECT_EQ(fs::last_write_time(store), written);
}

TEST(DataSynth, AClipFolderHoldsWhatTheStoreIsMadeFrom) {
  const TemporaryFolder folder;
  const fs::path clips = folder / "clips";
  const std::string worlds = "synth --worlds 2 --paths_per_world 1" + kSmall;
  expect_done(data(worlds + " --output " + clips.string(), 2));
  const json about = inspect(clips, "--verify ");
  EXPECT_EQ(about["kind"], "clip folder");
  EXPECT_EQ(about["clips"], 2);
  EXPECT_EQ(about["video_frames"], 18);
  EXPECT_EQ(about["sources"], json({"world"}));
  // Encoding the videos gives the same cameras, captions and text as rendering into a store.
  const fs::path direct = folder / "direct.h5", encoded = folder / "encoded.h5";
  expect_done(data(with_codec(worlds + " --store " + direct.string())));
  expect_done(data(with_codec("encode --input " + clips.string() +
                              " --width 32 --height 32 --output " + encoded.string())));
  const hdf5::File a(direct, hdf5::File::Mode::kReadOnly);
  const hdf5::File b(encoded, hdf5::File::Mode::kReadOnly);
  for (const char* same : {"world_to_camera", "intrinsics", "text", "sample_id", "about"}) {
    EXPECT_TRUE(at::equal(a.read(same), b.read(same))) << same;
  }
  // The film's compression costs little.
  const at::Tensor exact = a.read("latents").to(at::kFloat);
  const double error = (b.read("latents").to(at::kFloat) - exact).square().mean().item<double>();
  EXPECT_LT(error, .05 * exact.square().mean().item<double>());
  // Rendered again, nothing is touched; with other options it is refused.
  const auto written = fs::last_write_time(clips / "videos" / "world-000001-0.mp4");
  expect_done(data(worlds + " --output " + clips.string()));
  EXPECT_EQ(fs::last_write_time(clips / "videos" / "world-000001-0.mp4"), written);
  expect_refused(data(worlds + " --samples 2 --output " + clips.string()), "samples = 1, now 2");
}

TEST(DataSynth, RefusesBadOptions) {
  const TemporaryFolder folder;
  const fs::path store = folder / "worlds.h5";
  const std::string to = " --store " + store.string();
  expect_refused(data("synth"), "give either --store FILE (with --codec FILE) or --output FOLDER");
  expect_refused(data("synth" + to), "--codec is missing", store);
  expect_refused(data("synth --codec absent.safetensors" + to), "absent.safetensors", store);
  expect_refused(data(with_codec("synth --width 34" + to)), "34x64 pixels: codec analytic-4x4x8-",
                 store);
  EXPECT_EQ(folder.entries(), 0) << "something half-written";
}

// ---- encode

/// Eight clips of one world each, rendered once.
const fs::path& eight_clips() {
  static const TemporaryFolder folder;
  static const fs::path path = [] {
    expect_done(data("synth --worlds 8 --paths_per_world 1" + kSmall + " --output " +
                     (folder / "clips").string()));
    return folder / "clips";
  }();
  return path;
}

std::string encode(const fs::path& input, const fs::path& output) {
  return with_codec("encode --width 32 --height 32 --input " + input.string() + " --output " +
                    output.string());
}

TEST(DataEncode, AKilledRunContinuesWithoutLossOrRepetition) {
  const TemporaryFolder folder;
  // The same eight videos under many ids, so that there is something to interrupt.
  json manifest = json::parse(read_file(eight_clips() / "clips.json"));
  const json originals = manifest["clips"];
  manifest["clips"] = json::array();
  for (int i = 0; i < 400; ++i) {
    json clip = originals[static_cast<size_t>(i) % originals.size()];
    clip["id"] = fmt::format("clip-{:04d}", i);
    clip["video"] = (eight_clips() / clip["video"].get<std::string>()).string();
    manifest["clips"].push_back(clip);
  }
  atomic_write(folder / "clips.json", manifest.dump());
  const fs::path whole = folder / "whole.h5", killed = folder / "killed.h5";
  expect_done(data(encode(folder.path(), whole), 2));
  const std::string command = kProgram + " data " + encode(folder.path(), killed);
  ASSERT_TRUE(kill_when(words(command), partial_holds(killed, 20))) << "it was done too soon";
  const auto left = states(killed.string() + ".partial");
  EXPECT_GE(left[1], 20);
  EXPECT_GT(left[0], 0) << "killed half way";
  expect_done(data(encode(folder.path(), killed)));
  expect_same_store(whole, killed);
}

TEST(DataEncode, ADamagedVideoIsRecordedAndTheRestEncoded) {
  const TemporaryFolder folder;
  const fs::path clips = folder / "clips", store = folder / "clips.h5";
  fs::copy(eight_clips(), clips, fs::copy_options::recursive);
  std::ofstream(clips / "videos" / "world-000003-0.mp4") << "this is no film";
  fs::resize_file(clips / "videos" / "world-000005-0.mp4", 900);
  fs::remove(clips / "videos" / "world-000006-0.mp4");
  const Outcome outcome = data(encode(clips, store), 2);
  expect_done(outcome);
  EXPECT_THAT(outcome.output, HasSubstr("5 clips encoded, 3 failed"));
  const json about = inspect(store, "--verify ");
  EXPECT_EQ(about["clips"], 5);
  ASSERT_EQ(about["failed"], 3);
  for (const char* id : {"world-000003-0", "world-000005-0", "world-000006-0"}) {
    EXPECT_THAT(about["failures"].dump(),
                AllOf(HasSubstr(id), HasSubstr(std::string(id) + ".mp4")));
  }
  for (const auto& video : fs::directory_iterator(clips / "videos")) {
    fs::resize_file(video.path(), 100);
  }
  const Outcome none = data(encode(clips, folder / "none.h5"));
  EXPECT_EQ(none.code, kExitBadInput);
  EXPECT_THAT(none.output, HasSubstr("no clip could be encoded; the first: "));
}

TEST(DataEncode, CropsToTheShapeOfThePictureAndCorrectsTheFocalLengths) {
  const TemporaryFolder folder;
  const fs::path clips = folder / "wide", crop = folder / "crop.h5",
                 stretch = folder / "stretch.h5";
  expect_done(
      data("synth --worlds 1 --paths_per_world 1 --width 96 --height 64 --samples 1 "
           "--latent_frames 2 --output " +
           clips.string()));
  expect_done(data(encode(clips, crop)));
  expect_done(data(encode(clips, stretch) + " --fit stretch"));
  const auto focal = [](const fs::path& store, int64_t axis) {
    const hdf5::File file(store, hdf5::File::Mode::kReadOnly);
    return file.read("intrinsics")[0][axis][axis].item<double>();
  };
  const double fx = 0.5050505, fy = fx * 96 / 64;
  EXPECT_NEAR(focal(crop, 0), fx * 96 / 64, 1e-6);  // the middle 64 x 64 of 96 x 64
  EXPECT_NEAR(focal(crop, 1), fy, 1e-6);
  EXPECT_NEAR(focal(stretch, 0), fx, 1e-6);
  EXPECT_NEAR(focal(stretch, 1), fy, 1e-6);
  expect_refused(data(encode(clips, crop) + " --fit stretch"), "fit = \"crop\", now \"stretch\"");
}

TEST(DataEncode, RefusesBadInput) {
  const TemporaryFolder folder;
  const fs::path store = folder / "clips.h5";
  expect_refused(data(encode(folder.path(), store)), "no clip folder here", store);
  expect_refused(data(encode(eight_clips(), store) + " --fit zoom"), "zoom", store);
  expect_refused(data(encode(eight_clips(), store) + " --width 30"), "30x32 pixels", store);
  std::ofstream(folder / "clips.json") << "{";
  expect_refused(data(encode(folder.path(), store)), "not JSON", store);
  EXPECT_EQ(folder.entries(), 1) << "something half-written";
}

// ---- import

/// A RealEstate10K folder of films rendered here (17 frames each), with cameras of our own.
class Re10kFolder {
 public:
  explicit Re10kFolder(int films) {
    expect_done(
        data(fmt::format("synth --worlds {} --paths_per_world 1 --width 48 --height 32 "
                         "--samples 1 --latent_frames 5 --output {}",
                         films, (folder_ / "films").string())));
    fs::create_directories(root() / "videos");
    fs::create_directories(root() / "poses");
  }
  fs::path root() const { return folder_ / "re10k"; }
  const fs::path& path() const { return folder_.path(); }

  /// Film `film` as clip `id`; each frame moves by `step` sideways.
  void add(const std::string& id, int film, double step, int lines = 17) {
    fs::copy_file(folder_ / "films" / "videos" / fmt::format("world-{:06d}-0.mp4", film),
                  root() / "videos" / (id + ".mp4"));
    std::ofstream file(root() / "poses" / (id + ".txt"));
    file << "https://example.org/" << id << "\n";
    for (int k = 0; k < lines; ++k) {
      file << fmt::format("{} 0.5 0.75 0.5 0.5 0 0 1 0 0 {} 0 1 0 2 0 0 1 3\n", 40000 * k,
                          step * k);
    }
  }
  void write_captions(int count) {
    json prompts = json::array();
    for (int i = 0; i < count; ++i) {
      prompts.push_back(fmt::format("room {}", i));
    }
    std::ofstream(root() / "captions.json") << json{{"prompts", prompts}};
  }

 private:
  TemporaryFolder folder_;
};

TEST(DataImport, HoldsFramesSoThatEveryLatentHasTheCameraOfAFileFrame) {
  Re10kFolder source(1);
  source.add("room", 1, -3);
  source.write_captions(1);
  const fs::path clips = source.path() / "clips";
  expect_done(data("import --data.root " + source.path().string() + " --output " + clips.string()));
  const json clip = json::parse(read_file(clips / "clips.json"))["clips"][0];
  EXPECT_EQ(clip["id"], "re10k-room");
  EXPECT_EQ(clip["caption"], "room 0");
  EXPECT_EQ(clip["frames"], 45);
  EXPECT_NEAR(clip["scale"].get<double>(), .08 / 3, 1e-9);
  ASSERT_EQ(clip["world_to_camera"].size(), 12);
  const auto frames = clip["frame_indices"].get<std::vector<int64_t>>();
  ASSERT_EQ(frames.size(), 45);
  for (size_t k = 0; k < 12; ++k) {
    EXPECT_EQ(frames[4 * k], static_cast<int64_t>(k)) << "latent " << k << " ends on file frame k";
    EXPECT_EQ(frames[k == 0 ? 0 : 4 * k - 3], static_cast<int64_t>(k));
    EXPECT_NEAR(clip["world_to_camera"][k][3].get<double>(), -.08 * static_cast<double>(k), 1e-9);
  }
  // As filmed: latent k has the camera of file frame 4 k, and a median step of 0.08 all the same.
  expect_done(data("import --hold 1 --data.root " + source.path().string() + " --output " +
                   clips.string()));
  const json filmed = json::parse(read_file(clips / "clips.json"))["clips"][0];
  EXPECT_EQ(filmed["frames"], 17);
  EXPECT_FALSE(filmed.contains("frame_indices"));
  EXPECT_NEAR(filmed["scale"].get<double>(), .08 / 12, 1e-9);
  const fs::path store = source.path() / "clips.h5";
  expect_done(data(encode(clips, store)));
  EXPECT_EQ(inspect(store, "--verify ")["latents"], json({5, 8, 8, 8}));
}

TEST(DataImport, RefusesImplausibleClipsOneByOne) {
  Re10kFolder source(1);
  source.add("a-good", 1, .08);
  source.add("b-short", 1, .08, 19);  // more cameras than frames
  source.add("c-long", 1, .08, 12);   // fewer
  source.add("d-jump", 1, .3);
  source.add("e-broken", 1, .08);
  source.add("f-lost", 1, .08);
  std::ofstream(source.root() / "poses" / "e-broken.txt", std::ios::app) << "1 2 3\n";
  fs::remove(source.root() / "videos" / "f-lost.mp4");
  source.write_captions(6);
  const fs::path clips = source.path() / "clips";
  const Outcome outcome = data("import --rescale false --data.root " + source.path().string() +
                               " --output " + clips.string() + " --hold 1");
  expect_done(outcome);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("1 clips imported, 5 refused"),
                    HasSubstr("only 17 frames, its cameras need 19"),
                    HasSubstr("more than 12 frames, its cameras need 12"),
                    HasSubstr("clip 're10k-d-jump' is refused: clip 're10k-d-jump': the camera of "
                              "latent frame 1 moves 1.2 units"),
                    HasSubstr("e-broken.txt line 19: 3 numbers"), HasSubstr("f-lost.mp4")));
  EXPECT_EQ(inspect(clips, "--verify ")["clips"], 1);
  source.write_captions(5);
  expect_refused(data("import --data.root " + source.path().string() + " --output " +
                      (source.path() / "other").string()),
                 "captions.json: 5 captions for 6 pose files", source.path() / "other");
}

TEST(DataImport, ReadsTheReferencesListOfGeneratedVideos) {
  const TemporaryFolder folder;
  const json list = {{{"image_path", "0.png"}, {"caption", "a yard"}, {"pose_str", "w-1, right-1"}},
                     {{"image_path", "1.png"}, {"caption", "a lake"}, {"pose_str", "a-2"}},
                     {{"image_path", "2.png"}, {"caption", "a hill"}, {"pose_str", "w-1"}}};
  std::ofstream(folder / "preencode_input.json") << list;
  for (const char* name : {"000000_w1right1", "000002_w1"}) {
    fs::create_directories(folder / "videos" / name);
    fs::copy_file(eight_clips() / "videos" / "world-000001-0.mp4",
                  folder / "videos" / name / "gen.mp4");
  }
  const fs::path clips = folder / "clips";
  const Outcome outcome = data("import --format list --latent_frames 3 --data.root " +
                               folder.path().string() + " --output " + clips.string());
  expect_done(outcome);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("1 clips imported, 2 refused"), HasSubstr("000001_a2/gen.mp4"),
                    HasSubstr("the trajectory 'w-1' has 2 poses, expected at least 3")));
  const json clip = json::parse(read_file(clips / "clips.json"))["clips"][0];
  EXPECT_EQ(clip["id"], "list-000000");
  EXPECT_EQ(clip["trajectory"], "w*1,l*1");
  EXPECT_EQ(clip["frames"], 9);
  EXPECT_EQ(clip["scale"], 1.0);
  EXPECT_NEAR(clip["world_to_camera"][1][11].get<double>(), -.08, 1e-9);
}

TEST(DataImport, SaysWhatItSkipsAndFailsUnlessThatIsAllowed) {
  const TemporaryFolder folder;
  const fs::path clips = folder / "clips";
  const std::string nothing =
      "import --data.root " + folder.path().string() + " --output " + clips.string();
  expect_refused(data(nothing), "no re10k data here", clips);
  const Outcome skipped = data(nothing + " --optional");
  expect_done(skipped);
  EXPECT_THAT(skipped.output, AllOf(StartsWith("skipped: "), HasSubstr("no re10k data here")));
  EXPECT_FALSE(fs::exists(clips));
  const Outcome variable = shell("env MINWM_DATA_ROOT=" + (folder / "elsewhere").string() + " " +
                                 kProgram + " data import --optional --output " + clips.string());
  EXPECT_THAT(variable.output, HasSubstr("elsewhere"));
  expect_refused(data(nothing + " --format tapes"), "tapes", clips);
}

TEST(DataImport, TheRealClipsBecomeLatents) {
  const fs::path root = fs::path(MINWM_SHARED_DATA) / "data";
  if (!fs::is_directory(root / "re10k" / "poses")) {
    GTEST_SKIP() << "no real clips in " << root;
  }
  const TemporaryFolder folder;
  const fs::path clips = folder / "clips", store = folder / "real.h5";
  const Outcome imported =
      data("import --config " MINWM_SOURCE_DIR "/datasets/real-clips.ini --data.root " +
           root.string() + " --output " + clips.string());
  expect_done(imported);
  EXPECT_THAT(imported.output, HasSubstr("10 clips imported, 0 refused"));
  expect_done(data(encode(clips, store), 2));
  const json about = inspect(store, "--verify ");
  EXPECT_EQ(about["clips"], 10);
  EXPECT_EQ(about["latents"], json({12, 8, 8, 8}));
}

// ---- inspect

TEST(DataInspect, VerifyNamesTheDamagedSample) {
  const TemporaryFolder folder;
  const fs::path store = folder / "worlds.h5";
  expect_done(data(
      with_codec("synth --worlds 2 --paths_per_world 1" + kSmall + " --store " + store.string())));
  {
    hdf5::File file(store, hdf5::File::Mode::kReadWrite);
    file.write_rows("latents", 1, file.read_rows("latents", 1, 1) + 1);
    file.close();
  }
  expect_done(data("inspect " + store.string()));
  const Outcome verified = data("inspect --verify " + store.string());
  EXPECT_EQ(verified.code, kExitBadInput);
  EXPECT_THAT(verified.output, AllOf(HasSubstr("1 of 2 clips are bad; the first: "),
                                     HasSubstr("world-000002-0"), HasSubstr("checksum is wrong")));
}

TEST(DataInspect, RefusesWhatItDoesNotKnow) {
  const TemporaryFolder folder;
  expect_refused(data("inspect " + (folder / "absent").string()), "no such file or folder");
  std::ofstream(folder / "text") << "hello";
  expect_refused(data("inspect " + (folder / "text").string()), "text");
  std::ofstream(folder / "cut.h5") << "\x89HDF\r\n\x1a\n";
  expect_refused(data("inspect " + (folder / "cut.h5").string()), "cut.h5");
}

}  // namespace
}  // namespace minwm
