// A training-like job whose checkpoint goes wrong: failing_saves MODE FOLDER [MILLISECONDS].
//   limit: rank 0 may not write more than a few bytes of a file: it fails inside HDF5
//   kill:  the last rank is killed MILLISECONDS after the second save has begun
//   slow:  the first rank's disk takes three times as long as a collective may
//   stuck: the first rank's disk never answers

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include <sys/resource.h>
#include <sys/stat.h>

#include "minwm/core/error.h"
#include "minwm/train/checkpoint.h"

namespace {

using namespace minwm;

constexpr int64_t kElements = 4 << 20;

void save(train::CheckpointWriter& checkpoints, int64_t step, const comm::World& world,
          const std::vector<std::filesystem::path>& attached = {}) {
  train::CheckpointInfo info;
  info.step = step;
  train::PartMap parts;
  for (const char* name : {"model/a", "model/b", "model/c"}) {
    parts[name] = {at::full({kElements}, static_cast<float>(step)),
                   {world.size(), kElements},
                   world.rank() * kElements};
  }
  checkpoints.save(info, {{"counters/step", at::full({1}, step, at::kLong)}}, parts, attached);
}

void limit_files() {
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{512, RLIM_INFINITY};
  ::setrlimit(RLIMIT_FSIZE, &small);
}

/// The first rank's writer reads a pipe, and stays there until somebody writes into it.
void save_from_pipe(comm::World& world, const std::string& folder, bool stuck) {
  const auto ranks = world.communicator();
  const std::filesystem::path pipe = folder + ".pipe";
  if (world.rank() == 0) {
    require(::mkfifo(pipe.c_str(), 0600) == 0, "cannot make {}", pipe.string());
  }
  train::CheckpointWriter checkpoints(folder, 5, ranks, true, stuck ? 0.5 : 60);
  ranks->barrier("pipe");
  save(checkpoints, 2, world, {pipe});
  if (stuck) {
    checkpoints.wait();
  }
  ranks->set_timeout(1);
  std::this_thread::sleep_for(std::chrono::seconds(3));
  if (world.rank() == 0) {
    std::ofstream(pipe) << "codec";
  }
  ranks->set_timeout(60);  // the end of the job may take its time
  checkpoints.wait();
}

int run(comm::World& world, int argc, char** argv) {
  require(argc >= 3, "expected: failing_saves MODE FOLDER [MILLISECONDS]");
  const std::string mode = argv[1];
  if (mode == "slow" || mode == "stuck") {
    save_from_pipe(world, argv[2], mode == "stuck");
    return 0;
  }
  const auto ranks = world.communicator();
  train::CheckpointWriter checkpoints(argv[2], 5, ranks, true);
  const bool last = world.rank() == world.size() - 1;
  if (mode == "limit" && world.rank() == 0) {
    limit_files();
  } else if (mode == "kill") {
    save(checkpoints, 1, world);
    checkpoints.wait();
  }
  save(checkpoints, 2, world);
  const auto begin = std::chrono::steady_clock::now();
  if (mode == "kill" && last) {
    std::this_thread::sleep_for(std::chrono::milliseconds(std::stoi(argv[3])));
    std::raise(SIGKILL);
  }
  while (std::chrono::steady_clock::now() - begin < std::chrono::seconds(20)) {
    ranks->all_reduce(at::ones({100}), "gradient");
    checkpoints.check();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("failing_saves", argc, argv, run);
}
