#include "minwm/core/files.h"

#include <csignal>
#include <cstdlib>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "temporary_folder.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

TEST(Files, AtomicWriteReplacesTheFileAndLeavesNothingElse) {
  const TemporaryFolder folder;
  const auto path = folder / "a" / "b.txt";
  atomic_write(path, "first");
  atomic_write(path, std::string("se\0cond", 7));
  EXPECT_EQ(read_file(path), std::string("se\0cond", 7));
  EXPECT_EQ(std::distance(fs::directory_iterator(path.parent_path()), fs::directory_iterator()), 1);
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { (void)read_file(folder / "none"); }),
              HasSubstr("none: No such file or directory"));
  EXPECT_THAT(error_of([&] { (void)read_file(folder.path()); }), HasSubstr("Is a directory"));
  atomic_write(folder / "file", "x");
  EXPECT_THAT(error_of([&] { atomic_write(folder / "file" / "below", "y"); }),
              HasSubstr("below: Not a directory"));
  fs::create_directory(folder / "taken");
  EXPECT_THAT(error_of([&] { atomic_write(folder / "taken", "y"); }),
              HasSubstr("taken: Is a directory"));
  EXPECT_EQ(folder.entries(), 2);
}

/// Fills a 1 MiB file system, mounted at `mount_point`.
void expect_full_disk_is_reported(const fs::path& mount_point) {
  atomic_write(mount_point / "kept.txt", "old");
  EXPECT_EQ(
      error_of([&] { atomic_write(mount_point / "kept.txt", std::string(3 << 20, 'x')); }),
      fmt::format("cannot write {}: No space left on device", (mount_point / "kept.txt").string()));
  EXPECT_EQ(read_file(mount_point / "kept.txt"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(mount_point), fs::directory_iterator()), 1);
}

TEST(Files, AFullDiskIsOneClearErrorAndLeavesTheOldFile) {
  const TemporaryFolder folder;
  const auto mount_point = folder / "small";
  fs::create_directory(mount_point);
  if (::mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  expect_full_disk_is_reported(mount_point);
  EXPECT_EQ(::umount(mount_point.c_str()), 0);
}

TEST(Files, AFileSizeLimitIsOneClearErrorAndLeavesTheOldFile) {
  const TemporaryFolder folder;
  atomic_write(folder / "kept.txt", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{1 << 16, before.rlim_max};
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      error_of([&] { atomic_write(folder / "kept.txt", std::string(1 << 20, 'x')); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("kept.txt: File too large"));
  EXPECT_EQ(read_file(folder / "kept.txt"), "old");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(PendingFile, AppearsOnPublishAndVanishesWithoutIt) {
  const TemporaryFolder folder;
  {
    const PendingFile pending(folder / "clip.mp4");
    EXPECT_EQ(pending.path().extension(), ".mp4");
    EXPECT_EQ(pending.path().parent_path(), folder.path());
    std::ofstream(pending.path()) << "half";
  }
  EXPECT_EQ(folder.entries(), 0);
  PendingFile pending(folder / "clip.mp4");
  std::ofstream(pending.path()) << "whole";
  EXPECT_FALSE(fs::exists(folder / "clip.mp4"));
  pending.publish();
  EXPECT_EQ(read_file(folder / "clip.mp4"), "whole");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(PendingFile, PublishingWhatWasNeverWrittenIsAnError) {
  const TemporaryFolder folder;
  PendingFile pending(folder / "clip.mp4");
  EXPECT_THAT(error_of([&] { pending.publish(); }), HasSubstr("No such file or directory"));
}

TEST(PublishDirectory, MovesAWholeFolderAndRefusesATakenName) {
  const TemporaryFolder folder;
  atomic_write(folder / "step.tmp" / "deep" / "state", "1");
  publish_directory(folder / "step.tmp", folder / "step");
  EXPECT_EQ(read_file(folder / "step" / "deep" / "state"), "1");
  EXPECT_FALSE(fs::exists(folder / "step.tmp"));
  fs::create_directory(folder / "step.tmp");
  EXPECT_THAT(error_of([&] { publish_directory(folder / "step.tmp", folder / "step"); }),
              HasSubstr("step exists already"));
  EXPECT_THAT(error_of([&] { publish_directory(folder / "none", folder / "new"); }),
              HasSubstr("none: not a folder"));
}

TEST(DataRoot, TheOptionWinsOverTheEnvironment) {
  ::setenv("MINWM_DATA_ROOT", "/from/environment", 1);
  EXPECT_EQ(data_root("/from/option"), "/from/option");
  EXPECT_EQ(data_root(), "/from/environment");
  ::unsetenv("MINWM_DATA_ROOT");
  EXPECT_EQ(data_root(), "");
}

}  // namespace
}  // namespace minwm
