#include "minwm/train/ema.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/safetensors.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

using testing::error_of;

at::Tensor scalar(float value) {
  return at::tensor({value}).requires_grad_(true);
}

void set(const at::Tensor& p, float value) {
  p.detach().fill_(value);
}

TEST(Ema, ReplaysTheReference) {
  const std::filesystem::path file =
      std::filesystem::path(MINWM_SHARED_DATA) / "golden/stages/ema_update_a.safetensors";
  if (!std::filesystem::exists(file)) {
    GTEST_SKIP() << "the reference cases are not on this machine";
  }
  const Safetensors reference(file);
  const auto config = nlohmann::json::parse(reference.metadata().at("config"));
  EmaOptions options;
  options.decay = config["decay"];
  const NamedParameters parameters = {
      {"bias", reference.get("in/0/bias").requires_grad_(true)},
      {"weight", reference.get("in/0/weight").requires_grad_(true)}};
  Ema ema(options, parameters);
  ema.start_if_due(0);
  for (int64_t k = 1; k <= config["updates"].get<int64_t>(); ++k) {
    for (const auto& [name, p] : parameters) {
      p.detach().copy_(reference.get(fmt::format("in/{}/{}", k, name)));
    }
    ema.update();
    for (const auto& [name, p] : parameters) {
      EXPECT_TRUE(at::allclose(ema.state().at(name),
                               reference.get(fmt::format("out/{}/{}", k, name)), 1e-6, 1e-6))
          << name << " after update " << k;
    }
  }
}

TEST(Ema, TheRampFollowsTheWeightsFastAtFirst) {
  EmaOptions options;
  options.decay = 0.99;
  options.ramp = true;
  const at::Tensor p = scalar(0);
  Ema ema(options, {{"p", p}});
  ema.start_if_due(0);
  double expected = 0;
  for (int64_t k = 0; k < 5; ++k) {
    set(p, static_cast<float>(k));
    ema.update();
    const double decay = std::min(0.99, (1.0 + k) / (10.0 + k));
    expected = decay * expected + (1 - decay) * static_cast<double>(k);
    EXPECT_NEAR(ema.state().at("p").item<double>(), expected, 1e-6) << "update " << k;
  }
  for (int64_t k = 5; k < 2000; ++k) {
    ema.update();
  }
  set(p, 5);
  ema.update();
  EXPECT_NEAR(ema.state().at("p").item<double>(), 4.01, 1e-5);  // decay is .99 by now
}

TEST(Ema, StartsAsACopyAtItsStep) {
  EmaOptions options;
  options.decay = 0.9;
  options.start = 3;
  const at::Tensor p = scalar(1);
  Ema ema(options, {{"p", p}});
  ema.start_if_due(2);
  ema.update();
  EXPECT_FALSE(ema.started());
  EXPECT_TRUE(ema.state().empty());
  set(p, 7);
  ema.start_if_due(3);
  EXPECT_EQ(ema.state().at("p").item<float>(), 7);
}

TEST(Ema, SwapsTheAverageInAndTheWeightsBack) {
  EmaOptions options;
  options.decay = 0.5;
  const at::Tensor p = scalar(0);
  Ema ema(options, {{"p", p}});
  ema.start_if_due(0);
  set(p, 8);
  ema.update();
  ema.swap();
  EXPECT_EQ(p.item<float>(), 4);
  ema.swap();
  EXPECT_EQ(p.item<float>(), 8);
  EXPECT_EQ(ema.state().at("p").item<float>(), 4);
}

TEST(Ema, CanLiveInTheParametersOfAnotherModule) {
  EmaOptions options;
  options.decay = 0.5;
  const at::Tensor p = scalar(2), home = scalar(0);
  Ema ema(options, {{"p", p}}, {{"p", home}});
  ema.start_if_due(0);
  EXPECT_EQ(home.item<float>(), 2);
  set(p, 4);
  ema.update();
  EXPECT_EQ(home.item<float>(), 3);
  ema.load_state({{"p", at::full({1}, 9.F)}, {"updates", at::tensor(1)}});
  EXPECT_EQ(home.item<float>(), 9);
  EXPECT_THAT(error_of([&] {
                Ema without({}, {{"p", p}}, {{"p", home}});
              }),
              ::testing::HasSubstr("ema.decay 0"));
}

TEST(Ema, WithoutDecayThereIsNoAverage) {
  const at::Tensor p = scalar(3);
  Ema ema({}, {{"p", p}});
  ema.start_if_due(0);
  ema.update();
  EXPECT_FALSE(ema.started());
  ema.swap();
  EXPECT_EQ(p.item<float>(), 3);
}

TEST(Ema, ContinuesBitForBitFromItsState) {
  EmaOptions options;
  options.decay = 0.9;
  options.ramp = true;
  const at::Tensor p = scalar(1);
  Ema through(options, {{"p", p}}), restored(options, {{"p", p}});
  through.start_if_due(0);
  set(p, 2);
  through.update();
  restored.load_state(through.state());
  set(p, -1);
  through.update();
  restored.update();
  EXPECT_TRUE(at::equal(through.state().at("p"), restored.state().at("p")));
  EXPECT_THAT(error_of([&] {
                restored.load_state({{"q", at::zeros({1})}});
              }),
              ::testing::HasSubstr("'p' is missing"));
}

}  // namespace
}  // namespace minwm::train
