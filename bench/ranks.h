#pragma once
// google-benchmark on several ranks.

#include <fstream>
#include <vector>

#include <benchmark/benchmark.h>

#include "minwm/comm/communicator.h"

namespace minwm::bench {

/// Ranks other than 0 say nothing.
class Silent : public benchmark::BenchmarkReporter {
 public:
  Silent() { SetOutputStream(&nowhere_); }
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}

 private:
  std::ofstream nowhere_;  // never opened: what is written to it is dropped
};

/// Runs the registered benchmarks on all ranks, which read the same arguments, so that all make the
/// same calls (a benchmark's number of iterations must be fixed for that). Rank 0 reports, and it
/// alone writes what --benchmark_out names. Returns the exit code.
inline int run_on_ranks(comm::World& world, int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  char no_file[] = "--benchmark_out=";
  if (world.rank() != 0) {
    arguments.push_back(no_file);  // the last one counts
  }
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  Silent silent;
  benchmark::RunSpecifiedBenchmarks(world.rank() == 0 ? nullptr : &silent);
  return 0;
}

}  // namespace minwm::bench
