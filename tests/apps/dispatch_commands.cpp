// Subcommands that show what the dispatcher handed them.

#include <cstdio>

#include "minwm/core/error.h"
#include "src/apps/command.h"

namespace minwm::apps {
namespace {

int show(comm::World& world, int argc, char** argv) {
  fmt::print("rank {} of {}:", world.rank(), world.size());
  for (int i = 0; i < argc; ++i) {
    fmt::print(" {}", argv[i]);
  }
  fmt::print("\n");
  return kExitStopped;
}

int refuse(comm::World&, int, char**) {
  fail("no such checkpoint");
}

const bool registered = register_command("data synth", "renders worlds", show) &&
                        register_command("data inspect", "shows a store", show) &&
                        register_command("train", "runs one stage", show) &&
                        register_command("refuse", "always fails", refuse);

}  // namespace
}  // namespace minwm::apps
