// main of every test with RANKS: starts MPI, fails if any rank fails.

#include <cstdio>

#include <gtest/gtest.h>

#include "minwm/core/error.h"
#include "mpi_test.h"

namespace minwm::testing {
namespace {

comm::World* current_world = nullptr;

int run_tests(comm::World& started, int argc, char** argv) {
  current_world = &started;
  started.communicator()->set_timeout(30);
  ::testing::InitGoogleTest(&argc, argv);
  if (started.rank() != 0) {
    // Other ranks speak through their failures only.
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    class Failures : public ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (result.failed()) {
          fmt::print(stderr, "[rank {}] {}:{}: {}\n", current_world->rank(),
                     result.file_name() == nullptr ? "" : result.file_name(), result.line_number(),
                     result.message());
        }
      }
    };
    listeners.Append(new Failures);
  }
  const int failed = RUN_ALL_TESTS();
  const auto& unit = *::testing::UnitTest::GetInstance();
  const double any_failed = started.communicator()->all_reduce_max(failed, "test result");
  if (started.rank() == 0 && unit.test_to_run_count() == unit.skipped_test_count()) {
    fmt::print("every test was skipped\n");
  }
  return any_failed > 0 ? 1 : 0;
}

}  // namespace

comm::World& world() {
  return *current_world;
}

}  // namespace minwm::testing

int main(int argc, char** argv) {
  return minwm::comm::run_world_main("mpi_test", argc, argv, minwm::testing::run_tests);
}
