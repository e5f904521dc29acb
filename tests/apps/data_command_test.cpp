// `minwm data fit-codec`, `synth` and `encode` as a user runs them: the real program, in folders of
// its own.

#include "tests/apps/data_command.h"

#include <array>
#include <filesystem>
#include <fstream>

namespace minwm::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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

TEST(DataFitCodec, RefitGivesAnOldCodecTheNewDecoderAndKeepsItsName) {
  const TemporaryFolder folder;
  const std::string old = (folder / "old.safetensors").string();
  const std::string refitted = (folder / "new.safetensors").string();
  const std::string same = "fit-codec --worlds 12 --width 32 --height 32 --samples 1";
  expect_done(
      data(same + " --patch 4 --channels 8 --decoder block --check_worlds 0 --output " + old));
  EXPECT_EQ(inspect(old)["codec"], inspect(codec_file())["codec"]);
  EXPECT_NE(read_file(old), read_file(codec_file()));
  const std::string before = read_file(old);
  const Outcome refit = data(same + " --check_worlds 2 --refit " + old + " --output " + refitted);
  expect_done(refit);
  EXPECT_THAT(refit.output, AllOf(HasSubstr(", decoder neighbourhood-3x3-"), HasSubstr("\nblock "),
                                  HasSubstr("\nneighbourhood ")));
  EXPECT_EQ(read_file(old), before);
  // The worlds of the first fit: what a fit of codec and decoder at once writes.
  EXPECT_EQ(read_file(refitted), read_file(codec_file()));
}

TEST(DataFitCodec, RefitRefusesAnotherLatentSpace) {
  const TemporaryFolder folder;
  const fs::path file = folder / "codec.safetensors";
  const std::string to = " --output " + file.string() + " --refit " + codec_file();
  expect_refused(data("fit-codec --channels 16" + to), "has 8", file);
  expect_refused(data("fit-codec --patch 8" + to), "has 4", file);
  expect_refused(data("fit-codec --decoder block" + to), "--decoder block", file);
  expect_refused(data("fit-codec --decoder_noise -1" + to), "decoder noise -1", file);
  expect_refused(data("fit-codec --output " + file.string() + " --refit /nowhere/codec"),
                 "/nowhere/codec", file);
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

}  // namespace
}  // namespace minwm::testing
