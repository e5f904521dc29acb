// Probes on a network that was never trained: what is written, and that training does not notice.

#include "src/apps/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/files.h"
#include "minwm/data/video.h"
#include "minwm/data/world.h"
#include "minwm/models/codec/analytic.h"
#include "tests/core/temporary_folder.h"

namespace minwm::apps {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

class ProbeTest : public ::testing::Test {
 protected:
  ProbeTest() {
    std::vector<at::Tensor> clips;
    for (uint64_t seed = 0; seed < 12; ++seed) {
      const auto world = data::make_world(seed, {.width = 32, .height = 32, .samples = 1});
      const at::Tensor path = at::eye(4, at::kDouble).repeat({5, 1, 1});
      path.select(1, 2).select(1, 3).copy_(at::arange(5, at::kDouble) * .1);
      clips.push_back(data::render(*world, path).pixels);
    }
    models::AnalyticCodec::fit(clips, {}).save(codec_);
    model_ = models::make_backbone("wan-tiny", 3);
  }

  train::CheckpointInfo info(const std::string& stage) const {
    train::CheckpointInfo info;
    info.model = "wan-tiny";
    info.stage = stage;
    info.sampler = "renoise";
    info.step_list =
        stage == "bidirectional" ? std::vector<double>{} : std::vector<double>{1000, 500};
    info.shift = 3;
    info.chunk_frames = stage == "bidirectional" ? 0 : 2;
    info.latent_frames = 4;
    info.latent_height = info.latent_width = 4;
    info.fx = info.fy = .505;
    return info;
  }
  std::filesystem::path file(int step, const std::string& kind) const {
    return folder_ / "probes" / fmt::format("step-{:06}.{}", step, kind);
  }

  TemporaryFolder folder_;
  std::filesystem::path codec_ = folder_ / "codec.safetensors";
  std::shared_ptr<models::Backbone> model_;
};

TEST_F(ProbeTest, WritesASheetAndAVideoPerStep) {
  const auto probe = make_probe({.worlds = 1, .paths = {"w", "turn=l"}}, model_, codec_,
                                info("teacher-forcing"), folder_.path());
  probe(500);
  const at::Tensor sheet = data::read_image(file(500, "png"));
  EXPECT_GT(sheet.size(0), 3 * 64);  // the truth and two paths
  EXPECT_EQ(data::read_video(file(500, "mp4")).frames.size(0), 13);
}

TEST_F(ProbeTest, ABidirectionalModelIsShownInItsOwnMode) {
  make_probe({.worlds = 1, .paths = {"w"}}, model_, codec_, info("bidirectional"),
             folder_.path())(7);
  EXPECT_TRUE(std::filesystem::exists(file(7, "png")));
}

TEST_F(ProbeTest, TrainingDoesNotNotice) {
  const auto probe = make_probe({.worlds = 1, .paths = {"w"}}, model_, codec_,
                                info("teacher-forcing"), folder_.path());
  torch::manual_seed(5);
  const at::Tensor expected = at::randn({4});
  torch::manual_seed(5);
  model_->train();
  probe(1);
  EXPECT_TRUE(model_->is_training());
  EXPECT_TRUE(at::equal(at::randn({4}), expected));
  EXPECT_TRUE(at::GradMode::is_enabled());
  for (const auto& parameter : model_->parameters()) {
    EXPECT_FALSE(parameter.grad().defined());
  }
  model_->eval();
  probe(2);
  EXPECT_FALSE(model_->is_training());
  EXPECT_EQ(read_file(file(1, "mp4")),
            read_file(file(2, "mp4")));  // the same weights, the same video
}

TEST_F(ProbeTest, ShowsTheWeightsAsTheyAreAtTheTime) {
  const auto probe = make_probe({.worlds = 1, .paths = {"w"}}, model_, codec_,
                                info("teacher-forcing"), folder_.path());
  probe(1);
  at::NoGradGuard no_grad;
  for (const auto& parameter : model_->parameters()) {
    parameter.add_(.05);
  }
  probe(2);
  EXPECT_NE(read_file(file(1, "mp4")), read_file(file(2, "mp4")));
}

TEST_F(ProbeTest, RefusesOptionsThatDoNotFitBeforeTraining) {
  const auto make = [&](const ProbeOptions& options, const std::filesystem::path& codec) {
    return error_of(
        [&] { make_probe(options, model_, codec, info("teacher-forcing"), folder_.path()); });
  };
  EXPECT_THAT(make({}, ""), HasSubstr("--data.codec"));
  EXPECT_THAT(make({}, folder_ / "absent.safetensors"), HasSubstr("absent.safetensors"));
  EXPECT_THAT(make({.worlds = 0}, codec_), HasSubstr("--probe.worlds 0"));
  EXPECT_THAT(make({.paths = {"q"}}, codec_), HasSubstr("--probe.paths: 'q'"));
  EXPECT_THAT(make({.paths = {}}, codec_), HasSubstr("--probe.paths"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "probes"));
}

}  // namespace
}  // namespace minwm::apps
