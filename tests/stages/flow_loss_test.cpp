#include "minwm/stages/flow_loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stages/bidirectional.h"
#include "minwm/stages/noise.h"
#include "minwm/stages/teacher_forcing.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"

namespace minwm::stages {
namespace {

using testing::FakeBackbone;

constexpr int64_t kFrames = 8;

/// Clips `first` … of a global batch.
data::Batch make_batch(int64_t clips, int64_t first = 0) {
  std::vector<at::Tensor> latents, text;
  data::Batch batch;
  for (int64_t i = first; i < first + clips; ++i) {
    const auto sample = static_cast<uint64_t>(i);
    latents.push_back(random_normal({kFrames, 3, 2, 2}, {1, "latents", sample}));
    text.push_back(random_normal({4, 5}, {1, "text", sample}));
    batch.global_samples.push_back(i);
  }
  batch.latents = at::stack(latents);
  batch.conditions.text = at::stack(text);
  batch.conditions.cameras = {at::eye(4).expand({clips, kFrames, 4, 4}),
                              at::eye(3).expand({clips, kFrames, 3, 3})};
  return batch;
}

/// The flow of a model that knows the truth: (x - x0) / sigma.
std::shared_ptr<FakeBackbone> perfect_model(const at::Tensor& truth) {
  return std::make_shared<FakeBackbone>([truth](const models::ForwardInput& input) {
    const at::Tensor sigma = diffusion::per_frame(input.timestep / 1000, truth);
    return at::where(sigma > 0, (input.latents - truth) / sigma, at::zeros_like(truth));
  });
}

std::shared_ptr<FakeBackbone> zero_model() {
  return std::make_shared<FakeBackbone>(
      [](const models::ForwardInput& input) { return at::zeros_like(input.latents); });
}

class BothStages : public ::testing::TestWithParam<bool> {
 protected:
  bool causal() const { return GetParam(); }
  FlowDraws draws(int64_t clips, int64_t first = 0, int64_t step = 0) const {
    return draw_flow(make_batch(clips, first), {9, step, 0}, options_, causal());
  }
  FlowOptions options_;
};
INSTANTIATE_TEST_SUITE_P(Stages, BothStages, ::testing::Values(false, true),
                         [](const auto& instance) {
                           return instance.param ? "TeacherForcing" : "Bidirectional";
                         });

TEST_P(BothStages, APerfectModelHasNoLoss) {
  options_.clean_first = 0.5;
  options_.text_dropout = 0.5;
  const auto batch = make_batch(6);
  const auto model = perfect_model(batch.latents);
  const auto terms = flow_loss(*model, batch, draws(6), options_, causal());
  EXPECT_LT(terms.loss.item<double>(), 1e-6);
}

TEST_P(BothStages, TheLossIsTheMeanSquareOverNoisedFramesOfEachClip) {
  const auto batch = make_batch(2);
  FlowDraws given = draws(2);
  given.sigma.narrow(1, 0, 4).zero_();
  const auto terms = flow_loss(*zero_model(), batch, given, options_, causal());
  const at::Tensor flow = (given.noise - batch.latents).slice(1, 4);
  EXPECT_NEAR(terms.loss.item<double>(), flow.square().mean().item<double>(), 1e-5);
}

TEST_P(BothStages, DrawsBelongToTheSampleNotToTheRank) {
  options_.clean_first = 0.5;
  options_.text_dropout = 0.5;
  const FlowDraws all = draws(6), part = draws(2, 3);
  for (const auto& [whole, piece] :
       {std::pair(all.noise, part.noise), std::pair(all.sigma, part.sigma),
        std::pair(all.text_kept, part.text_kept)}) {
    EXPECT_TRUE(at::equal(whole.narrow(0, 3, 2), piece));
  }
}

TEST_P(BothStages, StepsAndSamplesDrawDifferently) {
  const FlowDraws first = draws(2), second = draws(2, 0, 1);
  EXPECT_FALSE(at::equal(first.noise, second.noise));
  EXPECT_FALSE(at::equal(first.sigma, second.sigma));
  EXPECT_FALSE(at::equal(first.noise[0], first.noise[1]));
}

TEST_P(BothStages, AClipOrAChunkSharesItsNoiseLevel) {
  const at::Tensor sigma = draws(16).sigma;
  const int64_t chunk = causal() ? 4 : kFrames;
  const at::Tensor chunks = sigma.view({16, kFrames / chunk, chunk});
  EXPECT_TRUE(at::equal(chunks, chunks.narrow(2, 0, 1).expand_as(chunks)));
  if (causal()) {
    EXPECT_FALSE(at::equal(chunks.select(1, 0), chunks.select(1, 1)));
  }
}

TEST_P(BothStages, LevelsAreShiftedTowardsNoise) {
  options_.shift = 1;
  const at::Tensor u = draws(400).sigma;
  EXPECT_NEAR(u.mean().item<double>(), 0.5, 0.05);
  options_.shift = 3;
  const at::Tensor sigma = draws(400).sigma;
  EXPECT_TRUE(at::allclose(sigma, 3 * u / (1 + 2 * u)));
}

TEST_P(BothStages, ACleanFirstLatentIsDrawnAtItsShareAndOnlyThere) {
  options_.clean_first = 0.25;
  const at::Tensor sigma = draws(400).sigma;
  EXPECT_NEAR((sigma.select(1, 0) == 0).to(at::kFloat).mean().item<double>(), 0.25, 0.06);
  EXPECT_TRUE((sigma.slice(1, 1) > 0).all().item<bool>());
}

TEST_P(BothStages, AGivenFrameEntersCleanAtTimeZero) {
  options_.clean_first = 1;
  const auto batch = make_batch(3);
  const auto model = zero_model();
  flow_loss(*model, batch, draws(3), options_, causal());
  EXPECT_TRUE(at::equal(model->last.latents.select(1, 0), batch.latents.select(1, 0)));
  EXPECT_TRUE((model->last.timestep.select(1, 0) == 0).all().item<bool>());
}

TEST_P(BothStages, DroppedTextIsAllZeros) {
  options_.text_dropout = 0.5;
  const auto batch = make_batch(20);
  const FlowDraws given = draws(20);
  const auto model = zero_model();
  flow_loss(*model, batch, given, options_, causal());
  int64_t dropped = 0;
  for (int64_t i = 0; i < 20; ++i) {
    const bool kept = given.text_kept[i].item<bool>();
    EXPECT_TRUE(at::equal(model->last.conditions.text[i],
                          kept ? batch.conditions.text[i] : at::zeros({4, 5})));
    dropped += kept ? 0 : 1;
  }
  EXPECT_GT(dropped, 3);
  EXPECT_LT(dropped, 17);
}

TEST(TeacherForcing, SeesTheCleanClipAndCanNoiseIt) {
  FlowOptions options;
  const auto batch = make_batch(2);
  const auto model = zero_model();
  TeacherForcing stage(model, options);
  EXPECT_EQ(stage.name(), "teacher-forcing");
  stage.loss(0, batch, {1, 0, 0});
  EXPECT_TRUE(at::equal(model->last.clean_latents, batch.latents));
  EXPECT_FALSE(model->last.clean_timestep.defined());
  EXPECT_EQ(model->last.chunk_frames, 4);
  options.clean_noise = 0.2;
  TeacherForcing(model, options).loss(0, batch, {1, 0, 0});
  EXPECT_FALSE(at::allclose(model->last.clean_latents, batch.latents));
  EXPECT_LE(model->last.clean_timestep.max().item<double>(), 200);
}

TEST(TeacherForcing, RefusesClipsThatAreNoWholeChunks) {
  FlowOptions options;
  options.chunk_frames = 3;
  EXPECT_THAT(minwm::testing::error_of([&] {
                draw_flow(make_batch(1), {1, 0, 0}, options, true);
              }),
              ::testing::HasSubstr("8 latent frames are not a multiple of the chunk of 3"));
}

TEST(Bidirectional, HasNoCleanHalf) {
  const auto batch = make_batch(2);
  const auto model = zero_model();
  Bidirectional stage(model, {});
  EXPECT_EQ(stage.name(), "bidirectional");
  stage.loss(0, batch, {1, 0, 0});
  EXPECT_FALSE(model->last.clean_latents.defined());
}

TEST(FlowLoss, TheBellWeighsTheMiddleMost) {
  FlowOptions bell;
  bell.weighting = "wan_bell";
  const auto batch = make_batch(1);
  FlowDraws given = draw_flow(batch, {1, 0, 0}, bell, false);
  const auto ratio = [&](double sigma) {
    given.sigma.fill_(sigma);
    const double plain = flow_loss(*zero_model(), batch, given, {}, false).loss.item<double>();
    return flow_loss(*zero_model(), batch, given, bell, false).loss.item<double>() / plain;
  };
  EXPECT_GT(ratio(0.5), ratio(0.9));
  EXPECT_GT(ratio(0.9), ratio(0.999));
}

TEST(FlowLoss, MayCompareCleanLatentsOnTheLastFramesOnly) {
  FlowOptions options;
  options.compare = "clean";
  options.last_frames = 3;
  const auto batch = make_batch(2);
  const FlowDraws given = draw_flow(batch, {1, 0, 0}, options, true);
  const auto terms = flow_loss(*zero_model(), batch, given, options, true);
  const at::Tensor error = (terms.noisy - batch.latents).slice(1, kFrames - 3);
  EXPECT_NEAR(terms.loss.item<double>(), error.square().mean().item<double>(), 1e-5);
}

TEST(FlowLoss, AMaskMakesOneMeanOfTheElementsThatCount) {
  const auto batch = make_batch(2);
  FlowDraws given = draw_flow(batch, {1, 0, 0}, {}, false);
  given.mask = at::zeros_like(batch.latents);
  given.mask[0].narrow(0, 0, 2).fill_(1);
  given.mask[1].narrow(0, 0, 5).fill_(1);
  const at::Tensor error = (given.noise - batch.latents).square();
  const double expected =
      (error * given.mask).sum().item<double>() / given.mask.sum().item<double>();
  EXPECT_NEAR(flow_loss(*zero_model(), batch, given, {}, false).loss.item<double>(), expected,
              1e-5);
}

TEST(FlowLoss, AGivenFrameStaysCleanUnderTheReferencesTable) {
  FlowOptions options;
  options.table_sigma = options.bfloat16_timestep = true;
  options.clean_first = 1;
  const auto batch = make_batch(2);
  const auto model = zero_model();
  flow_loss(*model, batch, draw_flow(batch, {1, 0, 0}, options, true), options, true);
  EXPECT_TRUE(at::equal(model->last.latents.select(1, 0), batch.latents.select(1, 0)));
  EXPECT_EQ(model->last.timestep.select(1, 0).abs().max().item<double>(), 0);
}

TEST(Density, HasItsMomentsAndStaysInRange) {
  const at::Tensor u = random_uniform({20000, 1}, {1, "u"}),
                   extra = random_uniform({20000, 1}, {1, "extra"});
  EXPECT_TRUE(at::equal(density_sample(Density::kUniform, u, extra), u));
  const at::Tensor logit = density_sample(Density::kLogitNormal, u, extra);
  EXPECT_NEAR(logit.mean().item<double>(), 0.5, 0.01);
  EXPECT_NEAR(at::logit(logit).std().item<double>(), 1,
              0.02);  // a standard normal before the sigmoid
  const at::Tensor mode = density_sample(Density::kMode, u, extra);
  EXPECT_GT(mode.min().item<double>(), -1e-6);
  EXPECT_LT(mode.max().item<double>(), 1 + 1e-6);
  EXPECT_LT(mode.std().item<double>(), u.std().item<double>());  // more of the middle
  EXPECT_THAT(minwm::testing::error_of([] { parse_density("normal"); }),
              ::testing::HasSubstr("density 'normal'"));
}

}  // namespace
}  // namespace minwm::stages
