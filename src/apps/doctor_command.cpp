// minwm doctor: is this job fit to train? Names the rank that is not.

#include <cstdio>
#include <optional>
#include <string>

#include "command.h"
#include "doctor_checks.h"
#include "minwm/comm/nccl.h"
#include "minwm/core/device.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"

namespace minwm::apps {
namespace {

struct Settings {
  std::string folder, device = "cpu";
  bool json = false;
  double timeout = 60;
  void declare(Options& options) {
    options.add("output.dir", &folder,
                "folder whose speed and visibility are checked; empty: not checked");
    options.add_choice("device", &device, {"cpu", "cuda"}, "cuda: also GPUs and NCCL");
    options.add("json", &json, "print one JSON object instead of tables");
    options.add("parallel.timeout", &timeout, "seconds before a rank that hangs ends the check");
  }
};

/// {gpus: …} of this rank's host, or {problem}; with a GPU on every rank, NCCL is checked, too.
Json check_gpus(comm::World& world, const Settings& settings) {
  std::optional<c10::Device> device;
  Json result = Json::object();
  try {
    device = open_device(settings.device, world.local_rank());
    result = Json::parse(comm::describe_gpus());
  } catch (const Error& error) {
    result["problem"] = error.what();
  }
  const auto all = world.communicator();
  if (all->all_reduce_max(result.contains("problem") ? 1 : 0, "doctor") == 0) {
    const auto nccl = comm::make_nccl_communicator(all, *device);
    result.update(check_collectives(*nccl, *device));
  }
  return result;
}

void print_layout(const std::vector<Json>& ranks) {
  fmt::print("minwm doctor: {} rank{}\n", ranks.size(), ranks.size() == 1 ? "" : "s");
  for (const auto& [name, version] : ranks.front().at("versions").items()) {
    fmt::print("  {} {}\n", name, version.get<std::string>());
  }
  fmt::print("{:>5} {:<20} {:>5} {:>8} {:<12} {:>7} {:>10} {:>9}\n", "rank", "host", "local", "pid",
             "cores", "threads", "memory GiB", "free GiB");
  for (const Json& rank : ranks) {
    fmt::print("{:>5} {:<20} {:>5} {:>8} {:<12} {:>7} {:>10.1f} {:>9.1f}\n",
               rank.at("rank").get<int>(), rank.at("host").get<std::string>(),
               rank.at("local_rank").get<int>(), rank.at("pid").get<int>(),
               rank.at("cores").get<std::string>(), rank.at("threads").get<int>(),
               rank.at("memory_gib").get<double>(), rank.at("free_gib").get<double>());
  }
  std::fflush(stdout);
}

/// A figure of a check, or "-" where it was not made or failed.
std::string figure(const Json& check, const char* key) {
  return check.contains(key) ? fmt::format("{:.0f}", check.at(key).get<double>()) : "-";
}

void print_measures(const std::vector<Json>& ranks) {
  fmt::print("{:>5} {:>8} {:>10} {:>30} {:>30} {:>9} {:>10} {:>9}\n", "", "", "latency",
             "all-reduce GB/s", "all-to-all GB/s", "clock", "write", "read");
  fmt::print("{:>5} {:>8} {:>10} {:>30} {:>30} {:>9} {:>10} {:>9}\n", "rank", "GFLOP/s", "8 B us",
             "1, 16, 64 MiB", "1, 16, 64 MiB", "ms", "MB/s", "MB/s");
  for (const Json& rank : ranks) {
    const auto three = [&](const char* key) {
      const Json& values = rank.at(key);
      return fmt::format("{:.2f}, {:.2f}, {:.2f}", values[0].get<double>(), values[1].get<double>(),
                         values[2].get<double>());
    };
    const double skew =
        (rank.at("skew_low_ms").get<double>() + rank.at("skew_high_ms").get<double>()) / 2;
    const Json disk = rank.value("disk", Json::object());
    fmt::print("{:>5} {:>8.1f} {:>10.1f} {:>30} {:>30} {:>9.2f} {:>10} {:>9}\n",
               rank.at("rank").get<int>(), rank.at("gflops").get<double>(),
               rank.at("latency_us").get<double>(), three("all_reduce_gbs"),
               three("all_to_all_gbs"), skew, figure(disk, "write_mbs"), figure(disk, "read_mbs"));
    for (const Json& gpu : rank.value("gpu", Json::object()).value("gpus", Json::array())) {
      fmt::print("      GPU {} {}: {:.0f} GiB, reaches {} peers directly\n",
                 gpu.at("index").get<int>(), gpu.at("name").get<std::string>(),
                 gpu.at("memory_gib").get<double>(), gpu.at("peers").size());
    }
  }
}

int doctor(comm::World& world, int argc, char** argv) {
  Settings settings;
  Options options("minwm doctor",
                  "Checks ranks, network, clocks, disk and processors before a run.");
  settings.declare(options);
  if (!options.parse(argc, argv)) {
    return kExitDone;
  }
  require(settings.timeout > 0, "parallel.timeout {}: expected more than 0 seconds",
          settings.timeout);
  const auto all = world.communicator();
  all->set_timeout(settings.timeout);
  const bool talks = world.rank() == 0;
  Json mine = describe_rank(world);
  const auto layout = gather(*all, mine);
  if (talks && !settings.json) {
    print_layout(layout);
  }
  mine.update(measure_cpu(*all));
  mine["collectives"] = check_collectives(*all, c10::kCPU);
  mine.update(measure_network(*all));
  mine.update(measure_clock(*all));
  if (all->all_reduce_max(settings.folder.empty() ? 0 : 1, "doctor") > 0) {
    mine["disk"] = check_disk(*all, settings.folder);
  }
  if (all->all_reduce_max(settings.device == "cuda" ? 1 : 0, "doctor") > 0) {
    mine["gpu"] = check_gpus(world, settings);
  }
  const auto ranks = gather(*all, mine);
  const auto problems = find_problems(ranks);
  if (talks && settings.json) {
    fmt::print("{}\n",
               Json{{"ok", problems.empty()}, {"problems", problems}, {"ranks", ranks}}.dump(
                   -1, ' ', false, Json::error_handler_t::replace));
  } else if (talks) {
    print_measures(ranks);
    for (const std::string& problem : problems) {
      fmt::print("{}\n", problem);
    }
    fmt::print("{}", problems.empty() ? "ok\n" : "");
  }
  std::fflush(stdout);
  // mpirun ends the other ranks soon after the first that reports a failure.
  all->barrier("doctor");
  return problems.empty() ? kExitDone : kExitFailure;
}

const bool registered =
    register_command("doctor", "checks ranks, network, clocks and disk before a run", doctor);

}  // namespace
}  // namespace minwm::apps
