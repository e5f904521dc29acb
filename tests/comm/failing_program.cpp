// A rank that fails in the way its first argument names, while the others wait in a collective.

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include <ATen/ATen.h>

#include "minwm/comm/communicator.h"
#include "minwm/core/error.h"

namespace minwm::comm {
namespace {

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
