// `minwm data ode-pairs` as a user runs it.

#include <filesystem>

#include "minwm/core/random.h"
#include "minwm/data/latent_store.h"
#include "tests/apps/kill.h"
#include "tests/apps/small_model.h"
#include "tests/apps/store_states.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::expect_refused;
using testing::expect_same_store;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_minwm;
using testing::SmallModels;
using testing::TemporaryFolder;

constexpr int64_t kClips = 6;

/// Clips of procedural worlds, made once.
const std::string& clips() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    const std::string store = (folder / "clips.h5").string();
    const Outcome made = run_minwm(fmt::format(
        "data synth --worlds {} --first_seed 50 --paths_per_world 1 --latent_frames 8 --codec {} "
        "--store {} --width 32 --height 32 --samples 1",
        kClips, SmallModels::get().codec(), store));
    EXPECT_EQ(made.code, kExitDone) << made.err;
    return store;
  }();
  return path;
}

class OdePairsCommand : public ::testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_ / name; }
  std::string arguments(const std::string& name, const std::string& more,
                        const std::string& stage = "teacher-forcing") const {
    return fmt::format("data ode-pairs --checkpoint {} --stores {} --store {} --compute float32 {}",
                       SmallModels::get().run(stage), clips(), path(name).string(), more);
  }
  Outcome pairs(const std::string& name, const std::string& more, int ranks = 1) const {
    return run_minwm(arguments(name, more), ranks);
  }
  void make(const std::string& name, const std::string& more, int ranks = 1) const {
    const Outcome outcome = pairs(name, more, ranks);
    ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
    ASSERT_TRUE(fs::exists(path(name)));
  }

  TemporaryFolder folder_;
};

TEST_F(OdePairsCommand, KeepsTheTeachersTrajectoriesBesideTheClips) {
  const Outcome outcome = pairs("a.h5", "--clips 3 --steps 8 --batch 2 --seed 4");
  ASSERT_EQ(outcome.code, kExitDone) << outcome.err;
  EXPECT_EQ(outcome.out, path("a.h5").string() +
                             ": trajectories of 3 clips at sigma 1, 0.9375, 0.833333, 0.625\n");
  EXPECT_THAT(outcome.err, HasSubstr("ode pairs"));
  const data::LatentStore source(clips()), store(path("a.h5"));
  ASSERT_EQ(store.size(), 3);
  EXPECT_EQ(store.layout().ode_sigmas, (std::vector<double>{1, 0.9375, 5. / 6, 0.625}));
  for (int64_t i = 0; i < 3; ++i) {
    const data::Clip real = source.read(2 * i), clip = store.read(i);  // spread over all
    EXPECT_EQ(clip.sample_id, real.sample_id);
    EXPECT_EQ(clip.caption, real.caption);
    EXPECT_EQ(clip.trajectory, real.trajectory);
    EXPECT_EQ(clip.given, 0);
    EXPECT_TRUE(at::equal(clip.latents, real.latents));
    EXPECT_TRUE(at::equal(clip.text, real.text));
    EXPECT_TRUE(at::equal(clip.world_to_camera, real.world_to_camera));
    EXPECT_TRUE(at::equal(clip.intrinsics, real.intrinsics));
    const auto address = static_cast<uint64_t>(2 * i);
    const at::Tensor noise = random_normal(real.latents.sizes(), {4, "ode.noise", 0, address});
    EXPECT_TRUE(at::equal(clip.ode_states[0], noise.to(at::kHalf).to(at::kFloat)));
    EXPECT_TRUE(at::equal(clip.ode_states[5], real.latents));
    for (int64_t k = 0; k < 4; ++k) {
      EXPECT_FALSE(at::equal(clip.ode_states[k], clip.ode_states[k + 1]));
    }
  }
}

TEST_F(OdePairsCommand, GivesTheFirstLatentOfAShareOfClips) {
  make("a.h5", "--steps 4 --clean_first 0.5 --seed 2");
  const data::LatentStore store(path("a.h5"));
  int64_t given = 0;
  for (int64_t i = 0; i < kClips; ++i) {
    const data::Clip clip = store.read(i);
    const RandomKey draw{2, "ode.given", 0, static_cast<uint64_t>(i)};
    EXPECT_EQ(clip.given, random_uniform(draw) < 0.5 ? 1 : 0);
    for (int64_t k = 0; k < 5; ++k) {
      EXPECT_EQ(at::equal(clip.ode_states[k][0], clip.latents[0]), clip.given == 1);
    }
    given += clip.given;
  }
  EXPECT_TRUE(given > 0 && given < kClips) << "choose another seed";
}

TEST_F(OdePairsCommand, BothModesAgreeAndTheOptionsMatter) {
  const auto states = [&](const std::string& name, const std::string& more) {
    make(name, "--clips 2 --steps 8 " + more);
    return data::LatentStore(path(name)).read(1).ode_states;
  };
  const at::Tensor cached = states("cached.h5", "");
  // Both were rounded to float16.
  EXPECT_TRUE(at::allclose(states("full.h5", "--mode full"), cached, 2e-3, 2e-3));
  EXPECT_FALSE(at::equal(states("guided.h5", "--guidance 4")[4], cached[4]));
  EXPECT_FALSE(at::allclose(states("seed.h5", "--seed 1")[0], cached[0]));
  EXPECT_EQ(states("list.h5", "--step_list 1000,500").size(0), 4);
}

TEST_F(OdePairsCommand, TwoRanksKilledAndContinuedMakeTheSameStoreAsOne) {
  make("whole.h5", "--steps 48 --batch 1");
  const std::string command = fmt::format("{} -n 2 {}/minwm {}", LAUNCHER, MINWM_BINARY_DIR,
                                          arguments("killed.h5", "--steps 48 --batch 1"));
  ASSERT_TRUE(
      testing::kill_when(testing::words(command), testing::partial_holds(path("killed.h5"), 2)));
  EXPECT_FALSE(fs::exists(path("killed.h5")));
  const auto before = testing::states(path("killed.h5.partial"));
  EXPECT_GE(before[1], 2);
  EXPECT_GE(before[0], 1) << "it was killed too late";
  expect_refused(pairs("killed.h5", "--steps 48 --seed 5"),
                 "killed.h5.partial: was made with seed = 0, now 5");
  make("killed.h5", "--steps 48 --batch 1", 2);
  expect_same_store(path("whole.h5"), path("killed.h5"));
  const std::string finished = read_file(path("killed.h5"));
  make("killed.h5", "--steps 48 --batch 1");
  EXPECT_EQ(read_file(path("killed.h5")), finished) << "a finished store is left alone";
}

TEST_F(OdePairsCommand, ACheckpointThatIsNoTeacherIsRefused) {
  expect_refused(run_minwm(arguments("a.h5", "", "bidirectional")),
                 "a checkpoint of stage 'bidirectional' is no teacher of ODE pairs: minwm train "
                 "--stage teacher-forcing --init RUN makes one");
  EXPECT_EQ(folder_.entries(), 0);
}

TEST_F(OdePairsCommand, StoresThatDoNotFitTheTeacherAreRefused) {
  const std::string size = " --width 32 --height 32 --samples 1 ";
  const auto synth = [&](const std::string& name, const std::string& more) {
    const Outcome made =
        run_minwm(fmt::format("data synth --worlds 1 --paths_per_world 1 --store "
                              "{} {}",
                              path(name).string(), more));
    ASSERT_EQ(made.code, kExitDone) << made.err;
  };
  const std::string codec = path("other.safetensors").string();
  ASSERT_EQ(run_minwm("data fit-codec --worlds 10 --first_seed 3 --check_worlds 0 --output " +
                      codec + size)
                .code,
            kExitDone);
  synth("codec.h5", "--latent_frames 8 --codec " + codec + size);
  synth("short.h5", "--latent_frames 4 --codec " + SmallModels::get().codec() + size);
  const auto with = [&](const std::string& stores) {
    return run_minwm(fmt::format("data ode-pairs --checkpoint {} --stores {} --store {}",
                                 SmallModels::get().run("teacher-forcing"), stores,
                                 path("out.h5").string()));
  };
  expect_refused(with(path("codec.h5").string()), "codec.h5: was encoded by codec 'analytic-");
  expect_refused(with(path("short.h5").string()), "short.h5: holds latents 4x16x");
  expect_refused(with(clips() + "," + path("short.h5").string()),
                 "stores that are read together must agree");
  expect_refused(with(clips() + "," + clips()), "is there twice");
  expect_refused(with(path("absent.h5").string()), "absent.h5: does not exist");
  EXPECT_EQ(folder_.entries(), 3);
}

TEST_F(OdePairsCommand, OptionsThatCannotWorkAreRefusedBeforeAnyWork) {
  expect_refused(pairs("a.h5", "--steps 50"),
                 "50 solver steps: none starts at timestep 750 of the step list; 52 steps fit");
  expect_refused(pairs("a.h5", "--clips 7"), "--clips 7: the stores hold 6 clips");
  expect_refused(pairs("a.h5", "--batch 0"), "--batch 0");
  expect_refused(pairs("a.h5", "--clean_first 2"), "--clean_first 2");
  expect_refused(pairs("a.h5", "--negative absent.safetensors"), "absent.safetensors");
  expect_refused(pairs("a.h5", "--step_list 500,750"), "out of order");
  expect_refused(run_minwm("data ode-pairs --stores x --store y"), "--checkpoint is missing");
  expect_refused(run_minwm("data ode-pairs --checkpoint x --store y"), "--stores is missing");
  expect_refused(run_minwm("data ode-pairs --checkpoint x --stores y"), "--store is missing");
  expect_refused(run_minwm("data ode-pairs --checkpoint x --stores y --store y"),
                 "--store y: is one of --stores");
  EXPECT_EQ(folder_.entries(), 0);
}

}  // namespace
}  // namespace minwm
