#pragma once
// How a subcommand of `minwm` makes itself known: one file per subcommand, one registrar in it.
//
//   namespace { int inspect(comm::World& world, int argc, char** argv) { … } }
//   const bool registered = register_command("data inspect", "shows a latent store", inspect);

#include <string>

#include "minwm/comm/communicator.h"

namespace minwm::apps {

/// Runs on every rank; argv[0] is the last word of the subcommand's name. Returns an ExitCode.
using Command = int (*)(comm::World& world, int argc, char** argv);

/// Adds a subcommand before main starts. `name` is one word or two ("data synth"), `summary` its
/// line in the usage text. Always true, so that a constant can hold the call.
bool register_command(const std::string& name, const std::string& summary, Command command);

}  // namespace minwm::apps
