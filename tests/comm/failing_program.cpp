// A rank that fails in the way its first argument names, while the others wait in a collective.

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include <ATen/ATen.h>

#include "minwm/comm/communicator.h"
#include "minwm/core/error.h"
#include "src/comm/mpi_communicator.h"
#include "src/comm/progress.h"

namespace minwm::comm {
namespace {

/// One that runs elsewhere and never ends.
class StuckOperation : public Operation {
 public:
  using Operation::Operation;
  bool needs_polling() const override { return false; }

 private:
  bool poll() override { return false; }
};

/// A call to which rank 1 comes after `busy`, later than the timeout; it may itself take `seconds`.
void wait_for_disk(World& world, double seconds, std::chrono::milliseconds busy) {
  const auto all = world.communicator();
  all->set_timeout(0.5);
  if (world.rank() == 1) {
    std::this_thread::sleep_for(busy);
  }
  all->all_reduce(at::ones({8}), CallSite("disk").within(seconds));
  all->set_timeout(60);  // the end of the job may take its time
}

/// The progress thread is the only one that looks at the operation.
void start_stuck(World& world) {
  world.communicator()->set_timeout(0.5);
  const Watched watched = comm::watched(*world.communicator());
  Call call;
  call.op = "stuck";
  call.begun = std::chrono::steady_clock::now();
  watched.progress->add(std::make_shared<StuckOperation>(call, watched.group));
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

int run(World& world, int, char** argv) {
  const std::string way = argv[1];
  const auto all = world.communicator();
  all->barrier("start");
  if (world.rank() == 1) {
    if (way == "throw") {
      fail("the weights of \"blocks.3\" are missing");
    }
    if (way == "torch") {
      (void)at::ones({2, 3}).matmul(at::ones({2, 3}));
    }
    if (way == "kill") {
      std::raise(SIGKILL);
    }
    if (way == "suspend") {
      std::raise(SIGSTOP);
    }
    if (way == "hang" || way == "forget") {
      std::this_thread::sleep_for(std::chrono::seconds(60));
    }
  }
  if (way == "slow") {
    wait_for_disk(world, 30, std::chrono::milliseconds(1500));
    return kExitDone;
  }
  if (way == "too_slow") {
    wait_for_disk(world, 1.5, std::chrono::seconds(60));
  }
  if (way == "stuck") {
    start_stuck(world);
  }
  if (way == "stop") {
    return kExitStopped;
  }
  if (way == "hang" || way == "suspend" || way == "forget") {
    all->set_timeout(1);
  }
  if (way == "forget") {
    // Started, and nobody waits for it.
    at::Tensor gradient = at::ones({8});
    const auto work = all->all_reduce_async(gradient, "grad blocks.9");
    std::this_thread::sleep_for(std::chrono::seconds(60));
  }
  all->all_reduce(at::ones({8}), "grad blocks.7");
  return kExitDone;
}

}  // namespace
}  // namespace minwm::comm

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("failing", argc, argv, minwm::comm::run);
}
