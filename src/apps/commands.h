#pragma once
// The subcommands of `minwm`. Each gets argv without the program name (argv[0] is the subcommand).

namespace minwm::comm {
class World;
}

namespace minwm::apps {

int data_synth(comm::World& world, int argc, char** argv);
int data_import(comm::World& world, int argc, char** argv);
int data_fit_codec(comm::World& world, int argc, char** argv);
int data_encode(comm::World& world, int argc, char** argv);
int data_inspect(comm::World& world, int argc, char** argv);
int train(comm::World& world, int argc, char** argv);
int generate(comm::World& world, int argc, char** argv);
int evaluate(comm::World& world, int argc, char** argv);

}  // namespace minwm::apps
