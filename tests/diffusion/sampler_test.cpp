#include "minwm/diffusion/sampler.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::diffusion {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr Solver kSolvers[] = {Solver::kEuler, Solver::kRenoise, Solver::kUniPc,
                               Solver::kDpmPlusPlus};
constexpr double kMean = 1.5, kSpread = 0.4;

at::Tensor noise() {
  return random_normal({2, 3, 4, 2, 2}, {1, "noise"});
}

/// The exact flow where the clean values are normal (kMean, kSpread^2): the walk from noise e then
/// ends at kMean + kSpread e.
at::Tensor gaussian_flow(const at::Tensor& x, double sigma) {
  const double alpha = 1 - sigma, variance = alpha * alpha * kSpread * kSpread + sigma * sigma;
  const at::Tensor x0 = kMean + alpha * kSpread * kSpread / variance * (x - alpha * kMean);
  return (x - x0) / sigma;
}

/// Largest distance from the exact end after N steps between sigma 1 and 0.
double error(Solver solver, int64_t steps) {
  const auto sampler = make_sampler(solver, solver_sigmas(Solver::kEuler, steps, 1));
  at::Tensor x = noise();
  for (int64_t k = 0; k < steps; ++k) {
    x = sampler->step(k, x, gaussian_flow(x, sampler->sigmas()[static_cast<size_t>(k)]));
  }
  return (x - (kMean + kSpread * noise())).abs().max().item<double>();
}

TEST(Sampler, EulerConvergesToTheExactEndWithOrderOne) {
  const double coarse = error(Solver::kEuler, 20), fine = error(Solver::kEuler, 40);
  EXPECT_GT(coarse, 1.7 * fine);
  EXPECT_LT(coarse, 2.6 * fine);
  EXPECT_LT(error(Solver::kEuler, 640), 0.01);
}

TEST(Sampler, MultistepSolversConvergeWithOrderTwo) {
  for (const Solver solver : {Solver::kUniPc, Solver::kDpmPlusPlus}) {
    const double coarse = error(solver, 160), fine = error(solver, 320);
    EXPECT_GT(coarse, 3 * fine) << solver_name(solver);
    EXPECT_LT(fine, 0.1 * error(Solver::kEuler, 320)) << solver_name(solver);
  }
}

TEST(Sampler, TheLastStepIsThePredictionItself) {
  for (const Solver solver : kSolvers) {
    const auto sampler = make_sampler(solver, 3, 5);
    const at::Tensor x = noise(), flow = random_normal(x.sizes(), {1, "flow"});
    for (int64_t k = 0; k < 2; ++k) {
      sampler->step(k, x, flow, noise());
    }
    const double sigma = static_cast<float>(sampler->sigmas()[2]);
    EXPECT_TRUE(at::equal(sampler->step(2, x, flow), x - sigma * flow)) << solver_name(solver);
  }
}

TEST(Sampler, OneStepIsTheSameForAll) {
  const std::vector<double> one = {1.0};
  for (const Solver solver : kSolvers) {
    const auto sampler = make_sampler(solver, one);
    EXPECT_EQ(sampler->steps(), 1);
    EXPECT_TRUE(at::equal(sampler->step(0, noise(), 2 * noise()), -noise()));
  }
}

TEST(Sampler, KeepsTheTypeOfTheSample) {
  for (const Solver solver : kSolvers) {
    const auto sampler = make_sampler(solver, 2, 5);
    const at::Tensor x = noise().to(at::kBFloat16);
    EXPECT_EQ(sampler->step(0, x, noise(), noise()).scalar_type(), at::kBFloat16);
  }
}

TEST(Sampler, RenoisingTheTruthGivesTheTruthAtTheNextLevel) {
  const auto sampler = make_sampler(Solver::kRenoise, std::vector<double>{1, 0.5});
  EXPECT_TRUE(sampler->renoises());
  const at::Tensor x0 = random_normal(noise().sizes(), {1, "x0"}), fresh = 3 * noise();
  EXPECT_TRUE(at::allclose(sampler->step(0, noise(), noise() - x0, fresh), 0.5 * x0 + 0.5 * fresh,
                           1e-5, 1e-5));
}

TEST(Sampler, RenoisingWithoutNoiseIsRefused) {
  const auto sampler = make_sampler(Solver::kRenoise, 2, 5);
  EXPECT_THAT([&] { sampler->step(0, noise(), noise()); },
              ThrowsMessage<Error>(HasSubstr("step 0 needs noise")));
}

TEST(Sampler, MultistepSolversHandOutWholeTimesteps) {
  const auto unipc = make_sampler(Solver::kUniPc, 50, 5);
  const std::vector<double> first(unipc->timesteps().begin(), unipc->timesteps().begin() + 6);
  EXPECT_THAT(first, ElementsAre(999, 995, 991, 987, 982, 978));
  EXPECT_EQ(unipc->timesteps().back(), 92);
  const auto dpm = make_sampler(Solver::kDpmPlusPlus, 50, 5);
  for (const double t : dpm->timesteps()) {
    EXPECT_EQ(t, std::trunc(t));
  }
  EXPECT_NE(make_sampler(Solver::kEuler, 48, 5)->timesteps()[1], 995);
}

TEST(Sampler, FromSigmaOneEveryNumberStaysFinite) {
  for (const Solver solver : {Solver::kUniPc, Solver::kDpmPlusPlus}) {
    EXPECT_TRUE(std::isfinite(error(solver, 2))) << solver_name(solver);
    EXPECT_TRUE(std::isfinite(error(solver, 4))) << solver_name(solver);
  }
}

TEST(Sampler, LevelsThatMakeNoSenseAreNamed) {
  const auto refused = [](std::vector<double> sigmas, const char* text) {
    EXPECT_THAT([&] { make_sampler(Solver::kEuler, sigmas); },
                ThrowsMessage<Error>(HasSubstr(text)));
  };
  refused({}, "at least one noise level");
  refused({0}, "at least one noise level");
  refused({0.5, 0.7}, "level 0.7 is out of order");
  refused({0.5, 0.5}, "level 0.5 is out of order");
  refused({1.2, 0.5}, "level 1.2 is out of order");
  refused({1, 0, 0}, "level 0 is out of order");
  EXPECT_THAT([] { make_sampler(Solver::kEuler, 0, 5); },
              ThrowsMessage<Error>(HasSubstr("0 steps")));
}

TEST(Solver, NamesAreReadBack) {
  for (const Solver solver : kSolvers) {
    EXPECT_EQ(parse_solver(solver_name(solver)), solver);
  }
  EXPECT_THAT([] { parse_solver("heun"); },
              ThrowsMessage<Error>(HasSubstr("expected euler, renoise, unipc or dpm++")));
}

}  // namespace
}  // namespace minwm::diffusion
