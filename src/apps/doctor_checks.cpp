#include "doctor_checks.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <set>
#include <utility>

#include <sched.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <hdf5.h>
#include <mpi.h>
#include <spdlog/fmt/ranges.h>
#include <torch/headeronly/version.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::apps {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::string host_name() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  return host;
}

/// In GiB: {total, available}.
std::pair<double, double> memory() {
  std::ifstream file("/proc/meminfo");
  double total = 0, available = 0;
  for (std::string line; std::getline(file, line);) {
    double kib = 0;
    if (std::sscanf(line.c_str(), "MemTotal: %lf", &kib) == 1) {
      total = kib / (1 << 20);
    } else if (std::sscanf(line.c_str(), "MemAvailable: %lf", &kib) == 1) {
      available = kib / (1 << 20);
    }
  }
  return {total, available};
}

/// "0-1,4": the cores that this process may run on.
std::string allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::string text;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &set)) {
      continue;
    }
    const int first = core;
    while (core + 1 < CPU_SETSIZE && CPU_ISSET(core + 1, &set)) {
      ++core;
    }
    text += fmt::format("{}{}", text.empty() ? "" : ",", first);
    text += first == core ? "" : fmt::format("-{}", core);
  }
  return text;
}

/// The first line of what MPI says of itself, without its build details.
std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace

std::vector<Json> gather(comm::Communicator& world, const Json& mine) {
  const std::string text = mine.dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto length =
      static_cast<int64_t>(world.all_reduce_max(static_cast<double>(text.size()), "doctor"));
  at::Tensor padded = at::full({length}, ' ', at::kChar);
  std::copy(text.begin(), text.end(), static_cast<char*>(padded.mutable_data_ptr()));
  const at::Tensor all = at::empty({world.size(), length}, at::kChar);
  world.all_gather(padded, all, "doctor");
  std::vector<Json> ranks;
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto* const begin = static_cast<const char*>(all.const_data_ptr()) + rank * length;
    ranks.push_back(Json::parse(begin, begin + length));
  }
  return ranks;
}

Json describe_rank(const comm::World& world) {
  const auto [total, available] = memory();
  return {{"rank", world.rank()},
          {"host", host_name()},
          {"local_rank", world.local_rank()},
          {"pid", ::getpid()},
          {"cores", allowed_cores()},
          {"threads", at::get_num_threads()},
          {"memory_gib", total},
          {"free_gib", available},
          {"versions",
           {{"minwm", MINWM_VERSION},
            {"LibTorch", TORCH_VERSION},
            {"MPI", mpi_version()},
            {"HDF5", hdf5_version()}}}};
}

Json check_collectives(comm::Communicator& comm, c10::Device device) {
  const int size = comm.size(), rank = comm.rank();
  const auto part_of = [&](int of, int64_t n, at::ScalarType dtype) {
    const RandomKey key{.seed = 7, .purpose = "doctor", .sample = static_cast<uint64_t>(of)};
    return random_normal({n}, key).mul(4).round().to(dtype);
  };
  std::string sums;
  std::set<int> senders;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kLong}) {
    for (const int64_t n : {1, 1000, 100'003}) {
      // Small whole numbers: sums are exact in every type.
      at::Tensor sum = part_of(0, n, dtype);
      for (int other = 1; other < size; ++other) {
        sum = sum + part_of(other, n, dtype);
      }
      at::Tensor reduced = part_of(rank, n, dtype).to(device);
      comm.all_reduce(reduced, "doctor");
      // The sum of many ranks may need more bits than bf16 has.
      if ((dtype != at::kBFloat16 || size <= 16) && !reduced.cpu().equal(sum)) {
        sums += fmt::format("{}{} {}", sums.empty() ? "" : ", ", n, c10::toString(dtype));
      }
      const std::vector<int64_t> counts(static_cast<size_t>(size), n);
      const at::Tensor received = at::empty({n * size}, at::TensorOptions(device).dtype(dtype));
      comm.all_to_all(part_of(rank, n, dtype).repeat({size}).to(device), counts, received, counts,
                      "doctor");
      const at::Tensor arrived = received.cpu();
      for (int other = 0; other < size; ++other) {
        if (!arrived.narrow(0, n * other, n).equal(part_of(other, n, dtype))) {
          senders.insert(other);
        }
      }
    }
  }
  Json result = {{"device", device.str()}};
  if (!sums.empty()) {
    result["wrong_sums"] = sums;
  }
  if (!senders.empty()) {
    result["wrong_from"] = senders;
  }
  return result;
}

Json measure_network(comm::Communicator& world) {
  constexpr int kCalls = 200;
  const auto time_of = [&](int calls, const std::function<void()>& call) {
    call();
    world.barrier("doctor");
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) {
      call();
    }
    return seconds_since(begin) / calls;
  };
  const at::Tensor eight = at::zeros({1}, at::kDouble);
  Json result = {{"latency_us", 1e6 * time_of(kCalls, [&] { world.all_reduce(eight, "doctor"); })}};
  for (const int64_t mib : {1, 16, 64}) {
    const int64_t share = (mib << 20) / 4 / world.size(), n = share * world.size();
    const at::Tensor buffer = at::zeros({n}), received = at::zeros({n});
    const std::vector<int64_t> counts(static_cast<size_t>(world.size()), share);
    const double gigabytes = static_cast<double>(buffer.nbytes()) / 1e9;
    result["all_reduce_gbs"].push_back(gigabytes /
                                       time_of(2, [&] { world.all_reduce(buffer, "doctor"); }));
    result["all_to_all_gbs"].push_back(
        gigabytes /
        time_of(2, [&] { world.all_to_all(buffer, counts, received, counts, "doctor"); }));
  }
  return result;
}

Json measure_clock(comm::Communicator& world) {
  constexpr int kRounds = 20;
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  // A stamp that has arrived was made earlier: by rank 0's clock when it comes to rank 0 (from
  // below), by this rank's clock when rank 0's comes here (from above).
  at::Tensor ahead_at_least = at::full({world.size()}, -1e18, at::kDouble);
  double ahead_at_most = 1e18;
  const at::Tensor stamps = at::empty({world.size()}, at::kDouble);
  for (int round = 0; round < kRounds; ++round) {
    world.barrier("doctor");
    world.all_gather(at::full({1}, now(), at::kDouble), stamps, "doctor");
    const double arrived = now();
    ahead_at_most = std::min(ahead_at_most, arrived - stamps[0].item<double>());
    ahead_at_least = at::maximum(ahead_at_least, stamps - arrived);
  }
  world.broadcast(ahead_at_least, 0, "doctor");
  const bool reference = world.rank() == 0;
  return {{"skew_low_ms", reference ? 0 : 1e3 * ahead_at_least[world.rank()].item<double>()},
          {"skew_high_ms", reference ? 0 : 1e3 * ahead_at_most}};
}

Json measure_cpu(comm::Communicator& world) {
  constexpr int64_t kSide = 384;
  constexpr int kTries = 12;
  const at::Tensor matrix = at::ones({kSide, kSide});
  (void)matrix.matmul(matrix);
  world.barrier("doctor");
  double best = 1e9;
  for (int i = 0; i < kTries; ++i) {
    const auto begin = Clock::now();
    (void)matrix.matmul(matrix);
    best = std::min(best, seconds_since(begin));
  }
  return {{"gflops", 2e-9 * kSide * kSide * kSide / best}};
}

namespace {

/// What most ranks say; of several equally frequent values the one that comes first.
Json most_common(const std::vector<Json>& ranks, const std::function<Json(const Json&)>& value) {
  Json best;
  std::ptrdiff_t most = 0;
  for (const Json& rank : ranks) {
    const auto count = std::count_if(
        ranks.begin(), ranks.end(), [&](const Json& other) { return value(other) == value(rank); });
    if (count > most) {
      most = count;
      best = value(rank);
    }
  }
  return best;
}

double median(const std::vector<Json>& ranks, const char* key) {
  std::vector<double> values;
  for (const Json& rank : ranks) {
    values.push_back(rank.at(key).get<double>());
  }
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string name_of(const Json& rank) {
  return fmt::format("rank {} ({})", rank.at("rank").get<int>(),
                     rank.at("host").get<std::string>());
}

/// Who is to blame for messages that came wrong: the rank that sent, or received, most of them;
/// then the same with the messages that this does not explain.
void blame_for_messages(const std::vector<Json>& ranks, const std::string& device,
                        std::set<std::pair<int, int>> wrong, std::vector<std::string>& problems) {
  const auto touched = [&wrong](int rank, bool sent) {
    std::vector<int> others;
    for (const auto& [from, to] : wrong) {
      if ((sent ? from : to) == rank) {
        others.push_back(sent ? to : from);
      }
    }
    return others;
  };
  while (!wrong.empty()) {
    int worst = 0;
    bool sent = true;
    std::vector<int> others;
    for (const bool as_sender : {true, false}) {
      for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
        if (auto found = touched(rank, as_sender); found.size() > others.size()) {
          worst = rank;
          sent = as_sender;
          others = std::move(found);
        }
      }
    }
    problems.push_back(fmt::format(
        "{}: what it {} rank{} {} is wrong on {}: check memory and network of this host",
        name_of(ranks[static_cast<size_t>(worst)]), sent ? "sends to" : "receives from",
        others.size() == 1 ? "" : "s", fmt::join(others, ", "), device));
    std::erase_if(wrong,
                  [&](const auto& pair) { return (sent ? pair.first : pair.second) == worst; });
  }
}

/// Of check_collectives, which every rank keeps under `check`.
void find_wrong_results(const std::vector<Json>& ranks, const char* check,
                        std::vector<std::string>& problems) {
  std::set<std::pair<int, int>> wrong;
  std::string device;
  for (const Json& rank : ranks) {
    const Json found = rank.value(check, Json::object());
    device = found.value("device", device);
    for (const int sender : found.value("wrong_from", std::vector<int>())) {
      wrong.emplace(sender, rank.at("rank").get<int>());
    }
  }
  blame_for_messages(ranks, device, wrong, problems);
  // Where a rank sends wrong data, every rank's sums are wrong: they tell no more.
  for (const Json& rank : ranks) {
    const Json found = rank.value(check, Json::object());
    if (wrong.empty() && found.contains("wrong_sums")) {
      problems.push_back(
          fmt::format("{}: wrong all-reduce of {} on {}: check memory and network of this host",
                      name_of(rank), found.at("wrong_sums").get<std::string>(), device));
    }
  }
}

}  // namespace

std::vector<std::string> find_problems(const std::vector<Json>& ranks) {
  // Half of the usual speed could be the noise of a shared machine.
  constexpr double kSlow = 0.4;
  constexpr double kSkewMs = 100;
  const Json threads = most_common(ranks, [](const Json& rank) { return rank.at("threads"); });
  const Json versions = most_common(ranks, [](const Json& rank) { return rank.at("versions"); });
  const double speed = median(ranks, "gflops");
  std::vector<std::string> problems;
  for (const Json& rank : ranks) {
    const auto add = [&](const std::string& what) {
      problems.push_back(fmt::format("{}: {}", name_of(rank), what));
    };
    if (rank.at("threads") != threads) {
      add(fmt::format("{} threads, the others have {}: set OMP_NUM_THREADS alike on all ranks",
                      rank.at("threads").dump(), threads.dump()));
    }
    for (const auto& [name, version] : rank.at("versions").items()) {
      if (version != versions.value(name, Json())) {
        add(fmt::format("{} {}, the others have {}: install the same on all hosts", name,
                        version.dump(), versions.value(name, Json()).dump()));
      }
    }
    if (rank.at("gflops") < kSlow * speed) {
      add(
          fmt::format("{:.1f} GFLOP/s, the median is {:.1f}: look for other jobs, throttling or "
                      "bound cores on this host",
                      rank.at("gflops").get<double>(), speed));
    }
    const double low = rank.at("skew_low_ms"), high = rank.at("skew_high_ms");
    if (low > kSkewMs || high < -kSkewMs) {
      add(fmt::format("its clock is {:.0f} ms off rank 0's: synchronise the clocks (NTP)",
                      low > 0 ? low : high));
    }
    for (const char* check : {"disk", "gpu"}) {
      if (rank.contains(check) && rank.at(check).contains("problem")) {
        add(rank.at(check).at("problem"));
      }
    }
  }
  find_wrong_results(ranks, "collectives", problems);
  find_wrong_results(ranks, "gpu", problems);
  return problems;
}

}  // namespace minwm::apps
