#include <algorithm>

#include <fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/diffusion/flow_match.h"
#include "minwm/stream/loaded_model.h"

namespace minwm::stream {
namespace {

using diffusion::Solver;

constexpr int64_t kManySteps = 50;  // what the published many-step models are sampled with

SamplerChoice many_steps(const train::CheckpointInfo& info, Solver solver, int64_t steps) {
  auto sigmas = diffusion::solver_sigmas(solver, steps == 0 ? kManySteps : steps, info.shift);
  sigmas.pop_back();  // the final 0 is implied
  return {solver, std::move(sigmas), {}};
}

SamplerChoice recorded_steps(const train::CheckpointInfo& info, Solver solver) {
  return {solver, diffusion::few_step_sigmas(info.step_list, info.shift),
          diffusion::few_step_sigmas(info.first_chunk_step_list, info.shift)};
}

/// "the 4 steps 1000,750,500,250 (the first chunk: 1000,500) with solver renoise".
std::string describe(const train::CheckpointInfo& info) {
  const auto& first = info.first_chunk_step_list;
  return fmt::format(
      "the {} step{} {}{} with solver {}", info.step_list.size(),
      info.step_list.size() == 1 ? "" : "s", fmt::join(info.step_list, ","),
      first.empty() ? "" : fmt::format(" (the first chunk: {})", fmt::join(first, ",")),
      info.sampler);
}

SamplerChoice few_step_stage(const train::CheckpointInfo& info, const SamplerOverrides& overrides,
                             const std::string& where) {
  require(!info.step_list.empty() && !info.sampler.empty(),
          "{}: a '{}' checkpoint must record its solver and step list (sampler.solver and "
          "sampler.step_list of its training), this one does not",
          where, info.stage);
  const bool other_steps =
      overrides.steps != 0 && overrides.steps != static_cast<int64_t>(info.step_list.size());
  const bool other_solver = !overrides.solver.empty() && overrides.solver != info.sampler;
  if (other_steps || other_solver) {
    const std::string wrong =
        (other_steps ? fmt::format(" --steps {}", overrides.steps) : std::string()) +
        (other_solver ? fmt::format(" --solver {}", overrides.solver) : std::string());
    fail("{}:{} does not fit: a '{}' checkpoint was trained for {}: drop {}", where, wrong,
         info.stage, describe(info),
         other_steps && other_solver ? "--steps and --solver"
         : other_steps               ? "--steps"
                                     : "--solver");
  }
  return recorded_steps(info, diffusion::parse_solver(info.sampler));
}

}  // namespace

SamplerChoice choose_sampler(const train::CheckpointInfo& info, const SamplerOverrides& overrides,
                             const std::string& where) {
  require(overrides.steps >= 0, "--steps {}: expected a positive number", overrides.steps);
  if (!overrides.solver.empty()) {
    diffusion::parse_solver(overrides.solver);
  }
  if (info.stage == "ode" || info.stage == "consistency" || info.stage == "dmd") {
    return few_step_stage(info, overrides, where);
  }
  const std::string recorded = info.sampler.empty() ? "euler" : info.sampler;
  if (info.stage == "bidirectional") {
    require(overrides.solver != "renoise",
            "{}: --solver renoise does not fit: a 'bidirectional' checkpoint follows the flow over "
            "many steps, only few-step students renoise: use --solver unipc, euler or dpm++",
            where);
    const std::string own = recorded == "renoise" ? "euler" : recorded;
    return many_steps(info,
                      diffusion::parse_solver(overrides.solver.empty() ? own : overrides.solver),
                      overrides.steps);
  }
  // Teacher forcing: the recorded list for those solvers that take any levels, if its length fits.
  const bool fits =
      !info.step_list.empty() &&
      (overrides.steps == 0 || overrides.steps == static_cast<int64_t>(info.step_list.size()));
  const Solver solver = diffusion::parse_solver(
      !overrides.solver.empty() ? overrides.solver : (fits ? recorded : "euler"));
  const bool any_levels = solver == Solver::kRenoise || solver == Solver::kEuler;
  return fits && any_levels ? recorded_steps(info, solver)
                            : many_steps(info, solver, overrides.steps);
}

}  // namespace minwm::stream
