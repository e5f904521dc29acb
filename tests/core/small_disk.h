#pragma once
// A file system that is soon full.

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <sys/mount.h>

namespace minwm::testing {

/// A tmpfs of `size` ("512k") at `path`, unmounted at the end; fails the test if a file on it is
/// still open then.
class SmallDisk {
 public:
  SmallDisk(std::filesystem::path path, const std::string& size) : path_(std::move(path)) {
    std::filesystem::create_directory(path_);
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_ && ::umount(path_.c_str()) != 0) {
      ADD_FAILURE() << "a file on the full disk is still open";
      ::umount2(path_.c_str(), MNT_DETACH);
    }
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  /// False without root: skip the test.
  bool mounted() const { return mounted_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  int64_t entries() const {
    return std::distance(std::filesystem::directory_iterator(path_),
                         std::filesystem::directory_iterator());
  }

 private:
  std::filesystem::path path_;
  bool mounted_ = false;
};

}  // namespace minwm::testing
