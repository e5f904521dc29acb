// `minwm data import` and `inspect` as a user runs them.

#include <array>
#include <filesystem>
#include <fstream>

#include "tests/apps/data_command.h"

namespace minwm::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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
}  // namespace minwm::testing
