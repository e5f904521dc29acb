// How long a save keeps training waiting: until the checkpoint is on the disk (synchronous), or
// until the tensors are copied (asynchronous). Also under mpirun; every rank holds its part.

#include <benchmark/benchmark.h>
#include <unistd.h>

#include "minwm/comm/communicator.h"
#include "minwm/core/error.h"
#include "minwm/train/checkpoint.h"
#include "ranks.h"

namespace {

using namespace minwm;
using Clock = std::chrono::steady_clock;

constexpr int64_t kTensors = 16, kElements = int64_t{2} << 20;  // 128 MiB in float32

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

train::PartMap make_parts(const comm::Communicator& ranks) {
  const int64_t begin = kElements * ranks.rank() / ranks.size();
  const int64_t end = kElements * (ranks.rank() + 1) / ranks.size();
  train::PartMap parts;
  for (int64_t i = 0; i < kTensors; ++i) {
    parts[fmt::format("model/param/{:02}", i)] = {at::ones({end - begin}), {kElements}, begin};
  }
  return parts;
}

void save_stall(benchmark::State& state, const std::shared_ptr<comm::Communicator>& ranks,
                bool asynchronous) {
  std::string name = std::filesystem::temp_directory_path() / "minwm-bench-XXXXXX";
  if (ranks->rank() == 0) {
    require(::mkdtemp(name.data()) != nullptr, "cannot make {}", name);
  }
  const std::filesystem::path folder = ranks->broadcast_string(name, 0, "folder");
  const auto parts = make_parts(*ranks);
  train::CheckpointWriter checkpoints(folder, 1, ranks, asynchronous);
  train::CheckpointInfo info;
  checkpoints.save(info, {}, parts, {});  // makes the host buffers
  checkpoints.wait();
  double total = 0;
  for (auto _ : state) {
    ++info.step;
    ranks->barrier("start");
    const auto begin = Clock::now();
    checkpoints.save(info, {}, parts, {});
    state.SetIterationTime(seconds_since(begin));
    checkpoints.wait();
    total += seconds_since(begin);
  }
  const double megabytes = static_cast<double>(kTensors * kElements * 4) * 1e-6;
  state.counters["MB/s"] = megabytes * static_cast<double>(state.iterations()) / total;
  ranks->barrier("done");
  if (ranks->rank() == 0) {
    std::filesystem::remove_all(folder);
  }
}

int run(comm::World& world, int argc, char** argv) {
  const auto ranks = world.communicator();
  for (const bool asynchronous : {false, true}) {
    const char* const name = asynchronous ? "save_stall/asynchronous" : "save_stall/synchronous";
    // The same number on all ranks: saving is collective.
    benchmark::RegisterBenchmark(name, save_stall, ranks, asynchronous)
        ->Iterations(5)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return bench::run_on_ranks(world, argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("checkpoint_bench", argc, argv, run);
}
