#include "minwm/stages/consistency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/options.h"
#include "minwm/diffusion/flow_match.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"
#include "tests/stages/small_wan.h"

namespace minwm::stages {
namespace {

using minwm::testing::error_of;
using testing::FakeBackbone;
using testing::gradients;
using ::testing::HasSubstr;
using testing::small_batch;
using testing::small_wan;

constexpr int64_t kFrames = 8;

ConsistencyOptions make_options(int64_t intervals = 12) {
  ConsistencyOptions options;
  options.intervals = intervals;
  options.guidance = 1;
  return options;
}

std::shared_ptr<FakeBackbone> constant_model(double flow) {
  return std::make_shared<FakeBackbone>(
      [flow](const models::ForwardInput& input) { return at::full_like(input.latents, flow); });
}

/// The flow of a model that knows the truth: (x - x0) / sigma.
std::shared_ptr<FakeBackbone> perfect_model(const at::Tensor& truth) {
  return std::make_shared<FakeBackbone>([truth](const models::ForwardInput& input) {
    const at::Tensor sigma = diffusion::per_frame(input.timestep / 1000, truth);
    return at::where(sigma > 0, (input.latents - truth) / sigma, at::zeros_like(truth));
  });
}

class ConsistencyLoss : public ::testing::Test {
 protected:
  ConsistencyDraws draws() const { return draw_consistency(batch_, {3, 1, 0}, options_); }
  ConsistencyTerms terms() {
    return consistency_loss({*student_, *teacher_, *average_}, batch_, draws(), options_);
  }

  ConsistencyOptions options_ = make_options();
  data::Batch batch_ = small_batch(kFrames, {0, 1, 2, 3});
  std::shared_ptr<FakeBackbone> student_ = constant_model(0), teacher_ = constant_model(0.5),
                                average_ = constant_model(0);
};

TEST_F(ConsistencyLoss, TheTeacherTakesOneEulerStepDownTheGrid) {
  const auto grid = diffusion::sampling_sigmas(options_.intervals, options_.shift);
  const auto given = draws();
  const auto result = terms();
  for (int64_t clip = 0; clip < batch_.latents.size(0); ++clip) {
    const auto i = static_cast<size_t>(given.interval[clip][0].item<int64_t>());
    EXPECT_NEAR(result.from.timestep[clip][0].item<double>(), 1000 * grid[i], 1e-3);
    EXPECT_NEAR(result.to.timestep[clip][0].item<double>(), 1000 * grid[i + 1], 1e-3);
    const at::Tensor noisy = (1 - grid[i]) * batch_.latents[clip] + grid[i] * given.noise[clip];
    EXPECT_TRUE(at::allclose(result.noisy[clip], noisy, 1e-5, 1e-6));
    EXPECT_TRUE(
        at::allclose(result.stepped[clip], noisy + 0.5 * (grid[i + 1] - grid[i]), 1e-5, 1e-6));
  }
}

TEST_F(ConsistencyLoss, TheAverageJudgesBehindTheStepTheOthersBeforeIt) {
  const auto result = terms();
  EXPECT_TRUE(at::equal(student_->last.latents, result.noisy));
  EXPECT_TRUE(at::equal(student_->last.timestep, result.from.timestep));
  EXPECT_TRUE(at::equal(teacher_->last.latents, result.noisy));
  EXPECT_TRUE(at::equal(average_->last.latents, result.stepped));
  EXPECT_TRUE(at::equal(average_->last.timestep, result.to.timestep));
  for (const auto& model : {student_, teacher_, average_}) {
    EXPECT_TRUE(at::equal(model->last.clean_latents, batch_.latents));
    EXPECT_EQ(model->last.chunk_frames, options_.chunk_frames);
  }
}

TEST_F(ConsistencyLoss, GuidanceOneIsTheConditionalPassAlone) {
  terms();
  EXPECT_EQ(teacher_->last.latents.size(0), 4);
}

TEST_F(ConsistencyLoss, GuidanceThreeGoesBeyondTheConditionalFlow) {
  options_ = make_options(1);
  options_.guidance = 3;
  batch_.latents.zero_();
  // Flow 2 with a text and 1 without: 1 + 3 (2 - 1) = 4.
  teacher_ = std::make_shared<FakeBackbone>([](const models::ForwardInput& input) {
    const at::Tensor has_text = input.conditions.text.abs().amax({1, 2}) > 0;
    return at::ones_like(input.latents) + has_text.view({-1, 1, 1, 1, 1}).to(at::kFloat);
  });
  auto given = draws();
  given.noise.zero_();
  const auto result = consistency_loss({*student_, *teacher_, *average_}, batch_, given, options_);
  EXPECT_EQ(teacher_->last.latents.size(0), 8);
  EXPECT_TRUE(at::equal(result.stepped, at::full_like(result.stepped, -4)));
}

TEST_F(ConsistencyLoss, ModelsThatAgreeOnTheTruthHaveNoLoss) {
  options_.clean_first = 0.5;
  student_ = teacher_ = average_ = perfect_model(batch_.latents);
  EXPECT_LT(terms().loss.item<double>(), 1e-10);
}

TEST_F(ConsistencyLoss, OnesAgainstZerosCostOne) {
  options_ = make_options(1);
  // At sigma 1: x0 = x - v is one for the student; the teacher steps to zero.
  student_ = std::make_shared<FakeBackbone>(
      [](const models::ForwardInput& input) { return input.latents - 1; });
  teacher_ = std::make_shared<FakeBackbone>(
      [](const models::ForwardInput& input) { return input.latents; });
  EXPECT_NEAR(terms().loss.item<double>(), 1, 1e-6);
}

TEST_F(ConsistencyLoss, TheLastIntervalEndsAtTheTeachersEndpoint) {
  options_ = make_options(1);
  average_ = constant_model(17);  // at sigma 0 its flow has no say
  const auto result = terms();
  EXPECT_TRUE(at::equal(result.target_x0, result.stepped));
  EXPECT_EQ(result.to.timestep.abs().max().item<double>(), 0);
}

TEST_F(ConsistencyLoss, AGivenFrameIsCleanAndCostsNothing) {
  options_.clean_first = 1;
  options_.level.table_sigma = true;  // a table without a sigma of 0
  student_ = std::make_shared<FakeBackbone>([](const models::ForwardInput& input) {
    at::Tensor flow = at::zeros_like(input.latents);
    flow.select(1, 0).fill_(100);
    return flow;
  });
  teacher_ = constant_model(0);
  const auto result = terms();
  for (const auto& model : {student_, teacher_, average_}) {
    EXPECT_TRUE(at::equal(model->last.latents.select(1, 0), batch_.latents.select(1, 0)));
    EXPECT_EQ(model->last.timestep.select(1, 0).abs().max().item<double>(), 0);
  }
  EXPECT_LT(result.loss.item<double>(), 1e-10);
}

TEST_F(ConsistencyLoss, TheLossIsTheMeanOverTheFramesNotGiven) {
  options_.clean_first = 1;
  const auto result = terms();
  const at::Tensor difference = (result.student_x0 - result.target_x0).slice(1, 1);
  EXPECT_GT(result.loss.item<double>(), 0);
  EXPECT_NEAR(result.loss.item<double>(), difference.square().mean().item<double>(), 1e-6);
}

TEST_F(ConsistencyLoss, DroppedTextIsTheNegativeOneForAllThree) {
  options_.text_dropout = 1;
  options_.negative.text = at::full({1, 3, testing::kTextDim}, 0.25);
  terms();
  for (const auto& model : {student_, teacher_, average_}) {
    EXPECT_TRUE(at::equal(model->last.conditions.text,
                          options_.negative.text.expand_as(batch_.conditions.text)));
    EXPECT_TRUE(model->last.conditions.cameras.defined());
  }
}

class ConsistencyDrawing : public ::testing::Test {
 protected:
  ConsistencyDraws draws(const std::vector<int64_t>& samples, int64_t step = 0) const {
    return draw_consistency(small_batch(kFrames, samples), {9, step, 0}, options_);
  }
  at::Tensor many_intervals() const {
    std::vector<int64_t> samples(300);
    std::iota(samples.begin(), samples.end(), 0);
    return draws(samples).interval;
  }
  ConsistencyOptions options_ = make_options();
};

TEST_F(ConsistencyDrawing, AClipOrAChunkSharesItsInterval) {
  const at::Tensor clip = many_intervals();
  EXPECT_TRUE(at::equal(clip, clip.narrow(1, 0, 1).expand_as(clip)));
  options_.per_chunk = true;
  const at::Tensor chunks = many_intervals().view({300, 2, 4});
  EXPECT_TRUE(at::equal(chunks, chunks.narrow(2, 0, 1).expand_as(chunks)));
  EXPECT_FALSE(at::equal(chunks.select(1, 0), chunks.select(1, 1)));
}

TEST_F(ConsistencyDrawing, EveryIntervalIsDrawnTheLastOnlyIfAsked) {
  EXPECT_EQ(many_intervals().min().item<int64_t>(), 0);
  EXPECT_EQ(many_intervals().max().item<int64_t>(), 11);
  options_.terminal = false;
  EXPECT_EQ(many_intervals().max().item<int64_t>(), 10);
  options_ = make_options(1);
  EXPECT_TRUE((many_intervals() == 0).all().item<bool>());
}

TEST_F(ConsistencyDrawing, DrawsBelongToTheSampleNotToTheRank) {
  options_.per_chunk = true;
  options_.clean_first = options_.text_dropout = 0.5;
  const auto all = draws({0, 1, 2, 3, 4, 5}), part = draws({3, 4}), later = draws({3, 4}, 1);
  for (const auto& [whole, piece] :
       {std::pair(all.noise, part.noise), std::pair(all.interval, part.interval),
        std::pair(all.text_kept, part.text_kept)}) {
    EXPECT_TRUE(at::equal(whole.narrow(0, 3, 2), piece));
  }
  EXPECT_FALSE(at::equal(part.noise, later.noise));
  EXPECT_FALSE(at::equal(part.noise[0], part.noise[1]));
}

TEST_F(ConsistencyDrawing, AFirstLatentIsGivenAtItsShareAndOnlyThere) {
  options_.clean_first = 0.25;
  const at::Tensor interval = many_intervals();
  EXPECT_NEAR((interval.select(1, 0) == -1).to(at::kFloat).mean().item<double>(), 0.25, 0.08);
  EXPECT_GE(interval.slice(1, 1).min().item<int64_t>(), 0);
}

TEST_F(ConsistencyDrawing, RefusesClipsThatAreNoWholeChunks) {
  options_.chunk_frames = 3;
  EXPECT_THAT(error_of([&] { draws({0}); }),
              HasSubstr("consistency: 8 latent frames are not a multiple of the chunk of 3"));
}

TEST(ConsistencyStage, OnlyTheStudentGetsGradients) {
  const auto student = small_wan(), teacher = small_wan(), average = small_wan();
  ConsistencyOptions options = make_options();
  options.guidance = 2;
  Consistency stage(student, teacher, average, options);
  EXPECT_EQ(stage.name(), "consistency");
  const auto networks = stage.networks();
  ASSERT_EQ(networks.size(), 1U);
  EXPECT_EQ(networks[0].name, "model");
  EXPECT_EQ(networks[0].module, student);
  EXPECT_EQ(networks[0].average, average);
  stage.loss(0, small_batch(kFrames, {0}), {1, 0, 0}).loss.backward();
  EXPECT_GT(gradients(*student).abs().max().item<double>(), 0);
  for (const auto& constant : {teacher, average}) {
    for (const auto& p : constant->parameters()) {
      EXPECT_FALSE(p.requires_grad());
      EXPECT_FALSE(p.grad().defined());
    }
  }
}

TEST(ConsistencyStage, TheTargetIsAConstantEvenIfItsModelIsNot) {
  const auto student = small_wan(), average = small_wan();
  const auto batch = small_batch(kFrames, {0});
  const auto options = make_options();
  consistency_loss({*student, *average, *average}, batch,
                   draw_consistency(batch, {1, 0, 0}, options), options)
      .loss.backward();
  EXPECT_GT(gradients(*student).abs().max().item<double>(), 0);
  EXPECT_EQ(gradients(*average).abs().max().item<double>(), 0);
}

TEST(ConsistencyStage, RefusesOptionsThatMakeNoSense) {
  auto error_with = [](auto change) {
    ConsistencyOptions options;
    change(options);
    return error_of([&] { Consistency(small_wan(), small_wan(), small_wan(), options); });
  };
  EXPECT_THAT(error_with([](auto& o) { o.intervals = 0; }),
              HasSubstr("consistency.intervals 0: expected at least 1"));
  EXPECT_THAT(error_with([](auto& o) {
                o.intervals = 1;
                o.terminal = false;
              }),
              HasSubstr("consistency.intervals 1: expected at least 2 when the last one is not"));
  EXPECT_THAT(error_with([](auto& o) { o.shift = 0; }), HasSubstr("consistency.shift 0"));
  EXPECT_THAT(error_with([](auto& o) { o.guidance = -1; }), HasSubstr("consistency.guidance -1"));
  EXPECT_THAT(error_with([](auto& o) { o.clean_first = 1.5; }),
              HasSubstr("consistency.clean_first 1.5: expected 0 … 1"));
  EXPECT_THAT(error_with([](auto& o) { o.text_dropout = -0.1; }),
              HasSubstr("consistency.text_dropout -0.1"));
  EXPECT_THAT(error_with([](auto& o) { o.chunk_frames = 0; }),
              HasSubstr("consistency.chunk_frames 0"));
}

TEST(ConsistencyStage, IsConfiguredInItsOwnSection) {
  Options options("test", "");
  ConsistencyOptions consistency;
  consistency.declare(options);
  const char* arguments[] = {"test",
                             "--consistency.intervals=12",
                             "--consistency.per_chunk=true",
                             "--consistency.terminal=false",
                             "--consistency.table_sigma=true",
                             "--consistency.bfloat16_sigma=true"};
  ASSERT_TRUE(options.parse(static_cast<int>(std::size(arguments)), arguments));
  EXPECT_EQ(consistency.intervals, 12);
  EXPECT_TRUE(consistency.per_chunk);
  EXPECT_FALSE(consistency.terminal);
  EXPECT_TRUE(consistency.level.table_sigma);
  EXPECT_TRUE(consistency.level.bfloat16_sigma);
}

}  // namespace
}  // namespace minwm::stages
