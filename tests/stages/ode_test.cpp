#include "minwm/stages/ode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "minwm/core/random.h"
#include "minwm/diffusion/flow_match.h"
#include "tests/core/temporary_folder.h"
#include "tests/stages/fake_models.h"

namespace minwm::stages {
namespace {

using minwm::testing::error_of;
using testing::FakeBackbone;
using ::testing::HasSubstr;

constexpr int64_t kFrames = 4, kLevels = 4;

/// Clips `first` … of a global batch, with trajectories whose states are all different.
data::Batch make_batch(int64_t clips, int64_t first = 0) {
  std::vector<at::Tensor> states;
  data::Batch batch;
  for (int64_t i = first; i < first + clips; ++i) {
    const auto sample = static_cast<uint64_t>(i);
    states.push_back(random_normal({kLevels + 2, kFrames, 3, 2, 2}, {1, "states", sample}));
    batch.global_samples.push_back(i);
  }
  batch.ode_states = at::stack(states);
  batch.latents = batch.ode_states.select(1, kLevels + 1);
  batch.given = at::zeros({clips}, at::kLong);
  batch.conditions.text = at::ones({clips, 4, 5});
  return batch;
}

std::shared_ptr<FakeBackbone> constant_model(double flow) {
  return std::make_shared<FakeBackbone>(
      [flow](const models::ForwardInput& input) { return at::full_like(input.latents, flow); });
}

/// The flow whose x0 is the endpoint of the trajectory.
std::shared_ptr<FakeBackbone> perfect_model(const data::Batch& batch) {
  const at::Tensor endpoint = batch.ode_states.select(1, kLevels);
  return std::make_shared<FakeBackbone>([endpoint](const models::ForwardInput& input) {
    const at::Tensor sigma = diffusion::per_frame(input.timestep / 1000, endpoint);
    return at::where(sigma > 0, (input.latents - endpoint) / sigma, at::ones_like(endpoint));
  });
}

OdeDraws draws_of(const data::Batch& batch, int64_t step = 0, const OdeOptions& options = {}) {
  return draw_ode(batch, {9, step, 0}, options);
}

TEST(OdeDraws, TakeOneLevelOfTheListPerClip) {
  const data::Batch batch = make_batch(64);
  const OdeDraws draws = draws_of(batch);
  EXPECT_EQ(draws.step.sizes(), (std::vector<int64_t>{64, kFrames}));
  EXPECT_TRUE(at::equal(draws.step, draws.step.narrow(1, 0, 1).expand_as(draws.step)));
  EXPECT_EQ(std::get<0>(at::_unique(draws.step)).numel(), kLevels) << "all levels, never the end";
  const at::Tensor levels = at::tensor({1000.F, 937.5F, 833.3333F, 625.F});
  EXPECT_TRUE(at::allclose(draws.timestep, levels.take(draws.step)));
}

TEST(OdeDraws, DependOnTheStepAndTheClipAlone) {
  const OdeDraws all = draws_of(make_batch(32));
  EXPECT_TRUE(at::equal(draws_of(make_batch(8, 16)).step, all.step.narrow(0, 16, 8)));
  EXPECT_FALSE(at::equal(draws_of(make_batch(32), 1).step, all.step));
}

TEST(OdeDraws, GivenFramesHaveTimestepZero) {
  data::Batch batch = make_batch(3);
  batch.given[1] = 1;
  batch.given[2] = 2;
  const at::Tensor clean = draws_of(batch).timestep.eq(0).sum(1);
  EXPECT_TRUE(at::equal(clean, batch.given));
  EXPECT_EQ(draws_of(batch).timestep[2][1].item<float>(), 0);
}

TEST(OdeDraws, TextIsDroppedAtTheGivenRate) {
  OdeOptions options;
  EXPECT_FALSE(draws_of(make_batch(1), 0, options).text_kept.defined());
  options.text_dropout = 0.25;
  const double kept = draws_of(make_batch(400), 0, options).text_kept.mean().item<double>();
  EXPECT_NEAR(kept, 0.75, 0.08);
}

TEST(OdeDraws, BatchesWithoutTheRightTrajectoriesAreRefused) {
  data::Batch batch = make_batch(1);
  OdeOptions options;
  options.step_list = {1000, 500};
  EXPECT_THAT(error_of([&] { draws_of(batch, 0, options); }),
              HasSubstr("trajectories were kept at 4 levels, ode.step_list 1000,500 has 2"));
  options = {};
  options.chunk_frames = 3;
  EXPECT_THAT(error_of([&] { draws_of(batch, 0, options); }),
              HasSubstr("4 latent frames are not a multiple of ode.chunk_frames 3"));
  batch.ode_states = at::Tensor();
  EXPECT_THAT(error_of([&] { draws_of(batch); }), HasSubstr("minwm data ode-pairs"));
}

TEST(OdeLoss, TheStudentSeesTheDrawnStateAndTheRealPast) {
  const data::Batch batch = make_batch(8);
  const auto model = constant_model(0);
  const OdeDraws draws = draws_of(batch);
  ode_loss(*model, batch, draws, {});
  for (int64_t i = 0; i < 8; ++i) {
    const at::Tensor state = batch.ode_states[i].select(0, draws.step[i][0].item<int64_t>());
    EXPECT_TRUE(at::equal(model->last.latents[i], state));
  }
  EXPECT_TRUE(at::equal(model->last.clean_latents, batch.latents));
  EXPECT_FALSE(model->last.clean_timestep.defined());
  EXPECT_EQ(model->last.chunk_frames, 4);
}

TEST(OdeLoss, IsZeroForTheFlowToTheEndpoint) {
  const data::Batch batch = make_batch(8);
  const OdeTerms terms = ode_loss(*perfect_model(batch), batch, draws_of(batch), {});
  EXPECT_NEAR(terms.loss.item<double>(), 0, 1e-10);
  EXPECT_TRUE(at::allclose(terms.x0, batch.ode_states.select(1, kLevels), 1e-4, 1e-5));
}

TEST(OdeLoss, IsTheSquaredDistanceToTheEndpoint) {
  data::Batch batch = make_batch(2);
  batch.ode_states.zero_();
  const OdeDraws draws = draws_of(batch);
  const OdeTerms terms = ode_loss(*constant_model(2), batch, draws, {});
  const at::Tensor expected = (2 * draws.timestep.select(1, 0) / 1000).square();
  EXPECT_TRUE(at::allclose(terms.errors, expected));
  EXPECT_NEAR(terms.loss.item<double>(), expected.mean().item<double>(), 1e-6);
}

TEST(OdeLoss, GivenFramesDoNotCount) {
  data::Batch batch = make_batch(2);
  batch.given.fill_(1);
  const OdeDraws draws = draws_of(batch);
  const double before = ode_loss(*constant_model(1), batch, draws, {}).loss.item<double>();
  batch.ode_states.select(2, 0).fill_(100);
  EXPECT_EQ(ode_loss(*constant_model(1), batch, draws, {}).loss.item<double>(), before);
  batch.ode_states.select(2, 1).fill_(100);
  EXPECT_NE(ode_loss(*constant_model(1), batch, draws, {}).loss.item<double>(), before);
}

TEST(OdeLoss, OfTwoHalvesAveragesToThatOfTheWhole) {
  data::Batch whole = make_batch(4), first = make_batch(2), second = make_batch(2, 2);
  whole.given[0] = first.given[0] = 2;  // other numbers of frames count
  const auto loss = [](const data::Batch& batch) {
    return ode_loss(*constant_model(1), batch, draws_of(batch), {}).loss.item<double>();
  };
  EXPECT_NEAR((loss(first) + loss(second)) / 2, loss(whole), 1e-6);
}

TEST(OdeLoss, TheReferencesRoundingsAreSwitches) {
  data::Batch batch = make_batch(1);
  OdeDraws draws = draws_of(batch);
  draws.step = at::full({1, kFrames}, 2, at::kLong);
  draws.timestep = at::full({1, kFrames}, 833.3333F);
  const auto model = constant_model(1);
  const auto sigma = [&](const OdeOptions& options) {
    return ode_loss(*model, batch, draws, options).sigma[0][0].item<double>();
  };
  OdeOptions options;
  EXPECT_NEAR(sigma(options), 0.8333333, 1e-6);
  EXPECT_NEAR(model->last.timestep[0][0].item<double>(), 833.3333, 1e-3);
  options.levels.bfloat16_sigma = options.levels.bfloat16_timestep = true;
  EXPECT_EQ(sigma(options), 0.83203125);
  EXPECT_EQ(model->last.timestep[0][0].item<double>(), 832);
  options = {};
  options.levels.table_sigma = true;
  draws.timestep.fill_(0.5);
  EXPECT_NEAR(sigma(options), 0.00498, 1e-5) << "the table has no entry nearer to 0";
}

TEST(OdeRegression, LogsSumAndCountOfEveryLevel) {
  const data::Batch batch = make_batch(6);
  OdeRegression stage(constant_model(1), {});
  EXPECT_EQ(stage.networks().size(), 1);
  const LossOutput output = stage.loss(0, batch, {9, 0, 0});
  double sum = 0, count = 0;
  for (const char* level : {"1000", "750", "500", "250"}) {
    sum += output.values.at(std::string("mse_sum_") + level).item<double>();
    count += output.values.at(std::string("mse_count_") + level).item<double>();
  }
  EXPECT_EQ(output.values.size(), 8);
  EXPECT_EQ(count, 6);
  EXPECT_NEAR(sum / count, output.loss.item<double>(), 1e-6);
}

TEST(OdeRegression, DropsTheTextOfSomeClips) {
  OdeOptions options;
  options.text_dropout = 0.5;
  const auto model = constant_model(1);
  OdeRegression(model, options).loss(0, make_batch(32), {9, 0, 0});
  const at::Tensor kept = model->last.conditions.text.sum({1, 2});
  EXPECT_GT((kept == 0).sum().item<int64_t>(), 4);
  EXPECT_GT((kept == 20).sum().item<int64_t>(), 4);
  options.negative.text = at::full({1, 4, 5}, 2.);
  OdeRegression(model, options).loss(0, make_batch(32), {9, 0, 0});
  EXPECT_TRUE(at::equal(model->last.conditions.text.sum({1, 2}) == 40, kept == 0));
}

TEST(OdeOptions, ThatMakeNoSenseAreNamed) {
  const auto refused = [](const std::function<void(OdeOptions&)>& spoil) {
    OdeOptions options;
    options.check();
    spoil(options);
    return error_of([&] { options.check(); });
  };
  EXPECT_THAT(refused([](OdeOptions& o) { o.step_list.clear(); }), HasSubstr("ode.step_list"));
  EXPECT_THAT(refused([](OdeOptions& o) { o.step_list = {500, 1000}; }), HasSubstr("out of order"));
  EXPECT_THAT(refused([](OdeOptions& o) { o.levels.shift = 0; }), HasSubstr("ode.shift 0"));
  EXPECT_THAT(refused([](OdeOptions& o) { o.chunk_frames = 0; }), HasSubstr("ode.chunk_frames 0"));
  EXPECT_THAT(refused([](OdeOptions& o) { o.text_dropout = 2; }), HasSubstr("ode.text_dropout 2"));
}

TEST(OdeLevels, OfAStoreMustBeThoseOfTheOptions) {
  const std::vector<double> sigmas = diffusion::few_step_sigmas({1000, 750, 500, 250}, 5);
  require_ode_levels(sigmas, {}, "a.h5");
  OdeOptions options;
  options.levels.shift = 3;
  EXPECT_THAT(error_of([&] { require_ode_levels(sigmas, options, "a.h5"); }),
              HasSubstr("a.h5: ODE trajectories at sigma 1, 0.9375, 0.833333, 0.625; ode.step_list "
                        "1000,750,500,250 at ode.shift 3 means 1, 0.9, 0.75, 0.5"));
  options = {};
  options.step_list = {1000, 500};
  EXPECT_THAT(error_of([&] { require_ode_levels(sigmas, options, "a.h5"); }), HasSubstr("a.h5"));
  EXPECT_THAT(error_of([&] { require_ode_levels({}, {}, "a.h5"); }),
              HasSubstr("a.h5: holds no ODE trajectories"));
}

}  // namespace
}  // namespace minwm::stages
