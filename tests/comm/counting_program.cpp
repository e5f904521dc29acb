// Makes the collectives that its first argument names and writes, for every rank, what each has
// been counted to send: "RANK all_gather BYTES". Rank 3 writes FILE.3, where FILE is the second
// argument.

#include <functional>
#include <string>

#include <ATen/ATen.h>

#include "minwm/comm/communicator.h"
#include "minwm/core/files.h"

namespace minwm::comm {
namespace {

constexpr int64_t kShard = 100'000;

using Collective = std::function<void(Communicator&)>;

std::vector<std::pair<std::string, Collective>> collectives(const std::string& kind) {
  static const auto full = [](const Communicator& comm) {
    return at::ones({kShard * comm.size()});
  };
  if (kind == "pairs") {
    return {{"all_gather", [](Communicator& c) { c.all_gather(at::ones({kShard}), full(c), "x"); }},
            {"reduce_scatter",
             [](Communicator& c) { c.reduce_scatter(full(c), at::empty({kShard}), "x"); }},
            {"reduce_scatter_bf16",
             [](Communicator& c) {
               c.reduce_scatter(full(c).to(at::kBFloat16), at::empty({kShard}, at::kBFloat16), "x");
             }},
            {"all_reduce", [](Communicator& c) { c.all_reduce(full(c), "x"); }},
            {"all_to_all",
             [](Communicator& c) {
               // Rank a sends b + a elements to rank b.
               std::vector<int64_t> counts;
               int64_t total = 0;
               for (int64_t other = 0; other < c.size(); ++other) {
                 counts.push_back(other + c.rank());
                 total += counts.back();
               }
               c.all_to_all(at::ones({total}), counts, at::empty({total}), counts, "x");
             }},
            {"ring_shift", [](Communicator& c) {
               c.ring_shift_async({at::ones({kShard})}, {at::empty({kShard})}, "x")->wait();
             }}};
  }
  if (kind == "trees") {
    return {{"broadcast", [](Communicator& c) { c.broadcast(at::ones({1200}), 0, "x"); }},
            {"all_reduce", [](Communicator& c) { c.all_reduce(at::ones({1200}), "x"); }}};
  }
  return {};
}

int run(World& world, int, char** argv) {
  const auto all = world.communicator();
  std::string text;
  for (const auto& [name, collective] : collectives(argv[1])) {
    const int64_t before = all->bytes_sent();
    collective(*all);
    text += fmt::format("{} {} {}\n", world.rank(), name, all->bytes_sent() - before);
  }
  atomic_write(fmt::format("{}.{}", argv[2], world.rank()), text);
  return 0;
}

}  // namespace
}  // namespace minwm::comm

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("counting", argc, argv, minwm::comm::run);
}
