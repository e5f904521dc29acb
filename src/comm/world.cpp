#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <unistd.h>

#include <mpi.h>
#include <nlohmann/json.hpp>

#include "abort.h"
#include "minwm/comm/communicator.h"
#include "minwm/core/error.h"
#include "mpi_communicator.h"
#include "progress.h"

namespace minwm::comm {
namespace {

/// True if mpirun, srun or another launcher started this process.
bool launched() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    if (std::getenv(name) != nullptr) {
      return true;
    }
  }
  return false;
}

bool mpi_is_running() {
  int started = 0;
  int ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  return started != 0 && ended == 0;
}

std::string host_name() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  return host;
}

/// Collective over `world`.
std::unique_ptr<RollCall> make_roll_call(MPI_Comm world) {
  constexpr int kLength = 64;
  std::array<char, kLength> mine{};
  host_name().copy(mine.data(), kLength - 1);
  int size = 0;
  check_mpi(MPI_Comm_size(world, &size), "MPI_Comm_size");
  std::vector<std::array<char, kLength>> all(static_cast<size_t>(size));
  check_mpi(MPI_Allgather(mine.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, world),
            "MPI_Allgather");
  MPI_Comm handle = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(world, &handle), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  std::vector<std::string> hosts;
  for (const auto& name : all) {
    hosts.emplace_back(name.data());
  }
  return std::make_unique<RollCall>(handle, std::move(hosts));
}

}  // namespace

World::World(int* argc, char*** argv) {
  if (!launched()) {
    // A process of its own needs no daemon beside it, which Open MPI would start (and which needs
    // ssh to be installed).
    ::setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  }
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  require(provided == MPI_THREAD_MULTIPLE,
          "MPI grants thread level {}, MPI_THREAD_MULTIPLE is needed", provided);
  MPI_Comm handle = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &handle), "MPI_Comm_dup");
  progress_ = std::make_shared<Progress>(make_roll_call(handle));
  world_ = make_mpi_communicator(handle, progress_);
  MPI_Comm host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(handle, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(host, &local_rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(host, &local_size_), "MPI_Comm_size");
  check_mpi(MPI_Comm_free(&host), "MPI_Comm_free");
}

World::~World() {
  progress_->stop();
  // While an exception unwinds, the other ranks may be blocked: finalizing would wait for them.
  if (std::uncaught_exceptions() == 0) {
    MPI_Finalize();
  }
}

std::shared_ptr<Communicator> World::communicator() const {
  return world_;
}
int World::rank() const {
  return world_->rank();
}
int World::size() const {
  return world_->size();
}
int World::local_rank() const {
  return local_rank_;
}
int World::local_size() const {
  return local_size_;
}

void abort_job(const std::string& message, int exit_code) {
  abort_job_with(message, {}, exit_code);
}

void abort_job_with(const std::string& message, const nlohmann::ordered_json& details,
                    int exit_code) {
  const bool running = mpi_is_running();
  int rank = 0;
  if (running) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  }
  nlohmann::ordered_json line = {{"rank", rank}, {"host", host_name()}, {"what", message}};
  for (const auto& [key, value] : details.items()) {
    line[key] = value;
  }
  std::fflush(stdout);
  fmt::print(stderr, "{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  std::fflush(stderr);
  if (running) {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }
  std::_Exit(exit_code);
}

int run_world_main(const char* program, int argc, char** argv,
                   int (*body)(World& world, int argc, char** argv)) {
  try {
    World world(&argc, &argv);
    try {
      return body(world, argc, argv);
    } catch (...) {
      const Failure failure = current_failure();
      if (world.size() > 1) {
        abort_job(failure.message, failure.exit_code);
      }
      fmt::print(stderr, "{}: error: {}\n", program, failure.message);
      return failure.exit_code;
    }
  } catch (...) {
    const Failure failure = current_failure();
    fmt::print(stderr, "{}: error: {}\n", program, failure.message);
    return failure.exit_code;
  }
}

}  // namespace minwm::comm
