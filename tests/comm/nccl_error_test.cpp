// What a machine without a GPU, or without the NCCL library, says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/comm/mesh.h"
#include "minwm/comm/nccl.h"
#include "minwm/core/error.h"
#include "mpi_test.h"
#include "src/comm/nccl_module.h"
#include "tests/core/temporary_folder.h"

namespace minwm::comm {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(NcclErrors, AMachineWithoutAGpuIsToldSo) {
  // This program never opens a device, so that there is none for it on any machine.
  const auto world = testing::world().communicator();
  EXPECT_EQ(error_of([&] {
              (void)make_nccl_communicator(world, {c10::kCUDA, 0});
            }),
            "device cuda:0: NCCL needs a GPU, 0 usable here");
  const Mesh mesh = make_mesh(world, {.timeout = 30});
  EXPECT_THAT(error_of([&] {
                (void)make_device_mesh(mesh, {c10::kCUDA, 0});
              }),
              HasSubstr("device cuda:0: NCCL needs a GPU"));
  EXPECT_EQ(error_of([&] { (void)make_nccl_communicator(world, c10::kCPU); }),
            "NCCL moves CUDA tensors, the device is cpu");
}

TEST(NcclErrors, AMissingLibraryIsNamedWithTheWayToGetIt) {
  EXPECT_THAT(error_of([] { (void)nccl_symbol("/no/such/folder", kMakeNccl); }),
              AllOf(HasSubstr("/no/such/folder/libminwm_nccl.so"), HasSubstr("MINWM_CUDA"),
                    Not(HasSubstr("\n"))));
}

TEST(NcclErrors, TheLibraryThatWasBuiltOpensWithoutAGpu) {
#ifndef MINWM_HAS_NCCL
  GTEST_SKIP() << "the NCCL library was not built (MINWM_CUDA)";
#endif
  EXPECT_NE(nccl_symbol(program_folder(), kMakeNccl), nullptr);
  const auto version = reinterpret_cast<NcclVersion>(nccl_symbol(program_folder(), kNcclVersion));
  EXPECT_GT(version(), 22000);
}

}  // namespace
}  // namespace minwm::comm
