#include "minwm/diffusion/hy_discrete.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"

namespace minwm::diffusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(HyDiscreteTable, IndexZeroIsTheNoisiestAndOutsideIsClamped) {
  const HyDiscreteTable table(5);
  const auto sigma = table.sigma(at::tensor({-3, 0, 999, 1000, 4000}, at::kLong));
  EXPECT_EQ(sigma[0].item<float>(), 1);
  EXPECT_EQ(sigma[1].item<float>(), 1);
  for (int i = 2; i < 5; ++i) {
    EXPECT_EQ(sigma[i].item<float>(), table.train_sigmas()[999].item<float>());
  }
  EXPECT_NEAR(sigma[2].item<double>(), shift_sigma(0.001, 5), 1e-7);
}

TEST(HySchedule, EndsAtZeroAndFindsItsOwnTimesteps) {
  const auto schedule = hy_schedule(50, 5);
  EXPECT_EQ(schedule.sigmas[50].item<float>(), 0);
  for (int64_t k = 0; k < 50; ++k) {
    EXPECT_EQ(schedule.index_of(schedule.timesteps[k]), k);
  }
}

TEST(HySchedule, ATimestepMustBeOneOfItsOwn) {
  const auto schedule = hy_schedule(4, 5);
  EXPECT_THAT([&] { schedule.index_of(at::tensor(937.6F)); },
              ThrowsMessage<Error>(HasSubstr("is no timestep of the 4-step schedule")));
  EXPECT_THAT([&] { schedule.index_of(at::tensor(1000, at::kLong)); },
              ThrowsMessage<Error>(HasSubstr("an index taken for a timestep")));
  EXPECT_THAT([] { hy_schedule(0, 5); }, ThrowsMessage<Error>(HasSubstr("0 steps")));
}

TEST(HySchedule, TheFluxShiftGrowsWithTheTokens) {
  const auto few = hy_schedule(10, 1, 256), many = hy_schedule(10, 1, 4096);
  EXPECT_NEAR(few.sigmas[5].item<double>(), std::exp(0.5) / (std::exp(0.5) + 1), 1e-6);
  EXPECT_NEAR(many.sigmas[5].item<double>(), std::exp(1.15) / (std::exp(1.15) + 1), 1e-6);
  EXPECT_EQ(many.sigmas[10].item<float>(), 0);
}

}  // namespace
}  // namespace minwm::diffusion
