// Collectives between ranks: launch/mpirun-local -n 2 comm_bench. Rank 0 reports.

#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "minwm/comm/communicator.h"
#include "ranks.h"

namespace {

using namespace minwm;

comm::Communicator* all = nullptr;

/// Bytes of the whole buffer per second.
void count_bytes(benchmark::State& state, int64_t bytes) {
  state.counters["B/s"] = benchmark::Counter(static_cast<double>(bytes * state.iterations()),
                                             benchmark::Counter::kIsRate);
}

void all_reduce(benchmark::State& state) {
  at::Tensor buffer = at::zeros({state.range(0) / 4});
  all->barrier("bench");
  for (auto _ : state) {
    all->all_reduce(buffer, "bench");
  }
  count_bytes(state, state.range(0));
}

void all_gather(benchmark::State& state) {
  const int64_t shard = state.range(0) / 4 / all->size();
  const at::Tensor mine = at::zeros({shard});
  const at::Tensor full = at::zeros({shard * all->size()});
  all->barrier("bench");
  for (auto _ : state) {
    all->all_gather(mine, full, "bench");
  }
  count_bytes(state, state.range(0));
}

void reduce_scatter(benchmark::State& state) {
  const int64_t shard = state.range(0) / 4 / all->size();
  const at::Tensor mine = at::zeros({shard});
  const at::Tensor full = at::zeros({shard * all->size()});
  all->barrier("bench");
  for (auto _ : state) {
    all->reduce_scatter(full, mine, "bench");
  }
  count_bytes(state, state.range(0));
}

/// Time left in wait() after computing for longer than the collective takes.
void wait_after_work(benchmark::State& state) {
  const int64_t shard = state.range(0) / 4 / all->size();
  const at::Tensor mine = at::zeros({shard});
  const at::Tensor full = at::zeros({shard * all->size()});
  const at::Tensor matrix = at::ones({256, 256});
  for (auto _ : state) {
    all->barrier("bench");
    const auto work = all->all_gather_async(mine, full, "bench");
    for (int i = 0; i < 150; ++i) {
      benchmark::DoNotOptimize(matrix.matmul(matrix));
    }
    const auto begin = std::chrono::steady_clock::now();
    work->wait();
    state.SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
}

// Fixed numbers of iterations: every rank makes the same calls.
BENCHMARK(all_reduce)->Arg(1 << 10)->Iterations(2000)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(all_reduce)->Arg(8 << 20)->Iterations(60)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(all_gather)->Arg(8 << 20)->Iterations(60)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(reduce_scatter)
    ->Arg(8 << 20)
    ->Iterations(60)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(wait_after_work)
    ->Arg(32 << 20)
    ->Iterations(20)
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime();

int run(comm::World& world, int argc, char** argv) {
  at::set_num_threads(1);
  const auto communicator = world.communicator();
  all = communicator.get();
  return bench::run_on_ranks(world, argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("comm_bench", argc, argv, run);
}
