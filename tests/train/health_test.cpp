#include "minwm/train/health.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Health healthy(const std::string& name = "model", const HealthOptions& options = {}) {
  Health health(name, options);
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(health.refuse(1, 0.5 + 0.01 * (i % 7)), "");
  }
  return health;
}

TEST(Health, RefusesWhatIsNotFiniteAndCountsItInARow) {
  Health health("model", {});
  EXPECT_THAT(health.refuse(std::numeric_limits<double>::quiet_NaN(), 1), HasSubstr("loss nan"));
  EXPECT_THAT(health.refuse(1, std::numeric_limits<double>::infinity()), HasSubstr("norm inf"));
  EXPECT_EQ(health.bad_steps(), 2);
  EXPECT_EQ(health.refuse(1, 1), "");
  EXPECT_EQ(health.bad_steps(), 0);
}

TEST(Health, RefusesASpikeAgainstTheMedianButNotTheFirstSteps) {
  Health young("model", {});
  EXPECT_EQ(young.refuse(1, 0.01), "");
  EXPECT_EQ(young.refuse(1, 100), "");
  Health health = healthy();
  EXPECT_EQ(health.refuse(1, 9), "");
  EXPECT_THAT(health.refuse(1, 12), HasSubstr("times the median"));
  HealthOptions off;
  off.spike = 0;
  EXPECT_EQ(healthy("model", off).refuse(1, 1e6), "");
}

TEST(Health, SeesUpdatesThatVanishInRounding) {
  at::Tensor weight = at::full({100}, 1.0F).requires_grad_(true);
  weight.mutable_grad() = at::ones({100});
  const at::Tensor before = weight.detach().clone();
  weight.detach().narrow(0, 0, 20).add_(0.1);
  const auto measured = Health::describe_change(Health::change({before}, {weight}));
  EXPECT_NEAR(measured.at("unchanged"), 0.8, 1e-9);
  EXPECT_NEAR(measured.at("update_ratio"), 0.1 * std::sqrt(0.2), 1e-6);
  Health health = healthy();
  const auto alarms = health.alarms(100, 1, 0.5, measured);
  ASSERT_EQ(alarms.size(), 1U);
  EXPECT_THAT(alarms[0], HasSubstr("80 % of the weights"));
  EXPECT_THAT(health.alarms(200, 1, 0.5, measured), IsEmpty())
      << "one alarm of a kind in 200 steps";
  EXPECT_EQ(health.alarms(300, 1, 0.5, measured).size(), 1U);
}

TEST(Health, WarnsWhenTheCriticFallsBehindButNotAboutTheGenerator) {
  for (const std::string name : {"critic", "model"}) {
    Health health = healthy(name);
    for (int step = 0; step < 100; ++step) {
      EXPECT_THAT(health.alarms(step, 0.30, 0.5, {}), IsEmpty());
    }
    std::vector<std::string> alarms;
    for (int step = 100; step < 250; ++step) {
      for (const auto& alarm : health.alarms(step, 0.45, 0.5, {})) {
        alarms.push_back(alarm);
      }
    }
    if (name == "critic") {
      ASSERT_EQ(alarms.size(), 1U);
      EXPECT_THAT(alarms[0], HasSubstr("falls behind the generator"));
    } else {
      EXPECT_THAT(alarms, IsEmpty());
    }
  }
}

TEST(Health, WarnsWhenGradientsDisappear) {
  Health health = healthy();
  EXPECT_THAT(health.alarms(1, 1, 0.4, {}), IsEmpty());
  const auto alarms = health.alarms(2, 1, 1e-6, {});
  ASSERT_EQ(alarms.size(), 1U);
  EXPECT_THAT(alarms[0], HasSubstr("does the loss still reach the weights"));
}

TEST(Health, ContinuesFromItsState) {
  Health through = healthy(), restored("model", {});
  restored.load_state(through.state());
  EXPECT_EQ(through.refuse(1, 11), restored.refuse(1, 11));
  EXPECT_EQ(restored.bad_steps(), 1);
  EXPECT_TRUE(at::equal(through.state(), restored.state()));
}

TEST(Health, RejectsOptionsThatMakeNoSense) {
  HealthOptions options;
  options.spike = 0.5;
  EXPECT_THAT(error_of([&] { Health("model", options); }), HasSubstr("health.spike 0.5"));
  options = {};
  options.max_bad_steps = 0;
  EXPECT_THAT(error_of([&] { Health("model", options); }), HasSubstr("max_bad_steps 0"));
}

}  // namespace
}  // namespace minwm::train
