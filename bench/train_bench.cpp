// The optimizers on the parameters of `wan-tiny`: one step, gradients given. Argument 0: threads.

#include <benchmark/benchmark.h>

#include <torch/torch.h>

#include "minwm/core/random.h"
#include "minwm/models/backbone.h"
#include "minwm/train/optimizer.h"

namespace {

using namespace minwm;

void optimizer_step(benchmark::State& state, const char* name) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  const auto model = models::make_backbone("wan-tiny", 1);
  train::NamedParameters parameters;
  for (auto& item : model->named_parameters()) {
    item.value().mutable_grad() = random_normal(item.value().sizes(), {1, item.key()}) * 1e-3;
    parameters.emplace_back(item.key(), item.value());
  }
  train::OptimizerOptions options;
  options.name = name;
  options.muon_min_side = 8;
  const auto optimizer = train::make_optimizer(options, parameters);
  for (auto _ : state) {
    optimizer->step(1e-3);
  }
}

BENCHMARK_CAPTURE(optimizer_step, adamw, "adamw")
    ->Arg(1)
    ->Arg(2)
    ->ArgName("threads")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(optimizer_step, muon, "muon")
    ->Arg(1)
    ->Arg(2)
    ->ArgName("threads")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
