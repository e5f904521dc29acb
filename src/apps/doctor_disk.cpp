// The output folder as every rank sees it.

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "doctor_checks.h"
#include "minwm/core/error.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kPiece = size_t{4} << 20;
constexpr int kPieces = 8;

/// The folders that were not there are made, and removed at the end as far as they are empty.
class Folders {
 public:
  explicit Folders(const fs::path& folder) {
    for (fs::path path = fs::absolute(folder).lexically_normal(); !fs::exists(path);
         path = path.parent_path()) {
      made_.push_back(path);
    }
    fs::create_directories(folder);
  }
  ~Folders() {
    std::error_code ignored;  // another rank made them too, or still has its file there
    for (const fs::path& path : made_) {
      fs::remove(path, ignored);
    }
  }
  Folders(const Folders&) = delete;
  Folders& operator=(const Folders&) = delete;

 private:
  std::vector<fs::path> made_;  // innermost first
};

/// A new file that is gone when the check ends.
class Probe {
 public:
  explicit Probe(const fs::path& path)
      : path_(path), file_(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
    expect(file_ >= 0);
  }
  ~Probe() {
    ::close(file_);
    ::unlink(path_.c_str());
  }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  int file() const { return file_; }
  /// From here on only this process knows the file: it goes with it, however that ends.
  void unname() const { expect(::unlink(path_.c_str()) == 0); }
  /// @throws Error with the system's reason unless `good`.
  void expect(bool good) const {
    if (!good) {
      fail("cannot write or read {}: {}", path_.string(),
           std::error_code(errno, std::generic_category()).message());
    }
  }
  /// @throws Error unless `moved` bytes, the result of write() or read(), are a whole piece.
  void expect_piece(ssize_t moved) const {
    expect(moved >= 0);
    require(moved == static_cast<ssize_t>(kPiece),
            "cannot write or read {}: {} of {} bytes went through (is the disk full?)",
            path_.string(), moved, kPiece);
  }

 private:
  fs::path path_;
  int file_;
};

Json measure(const fs::path& path) {
  std::vector<char> piece(kPiece, 'm');
  const double megabytes = static_cast<double>(kPiece * kPieces) / 1e6;
  const Probe probe(path);
  probe.unname();
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  auto begin = Clock::now();
  for (int i = 0; i < kPieces; ++i) {
    probe.expect_piece(::write(probe.file(), piece.data(), kPiece));
  }
  probe.expect(::fsync(probe.file()) == 0);
  const double write = megabytes / seconds_since(begin);
  // From the disk, where the system does as it is asked, and not from its memory.
  ::posix_fadvise(probe.file(), 0, 0, POSIX_FADV_DONTNEED);
  probe.expect(::lseek(probe.file(), 0, SEEK_SET) == 0);
  begin = Clock::now();
  for (int i = 0; i < kPieces; ++i) {
    probe.expect_piece(::read(probe.file(), piece.data(), kPiece));
  }
  return {{"write_mbs", write}, {"read_mbs", megabytes / seconds_since(begin)}};
}

/// `action`, or its error as this rank's problem: the other ranks go on.
template <class Action>
Json attempt(const std::string& folder, const Action& action) {
  try {
    return action();
  } catch (const std::exception& error) {
    return {{"problem", fmt::format("{}: give a folder that every rank can write (--output.dir {})",
                                    error.what(), folder)}};
  }
}

}  // namespace

Json check_disk(comm::Communicator& world, const std::string& folder) {
  const std::string stem =
      world.broadcast_string(fmt::format(".minwm-doctor-{}", ::getpid()), 0, "doctor");
  std::optional<Folders> folders;
  Json result = attempt(folder, [&] {
    folders.emplace(folder);
    return measure(fs::path(folder) / fmt::format("{}-{}", stem, world.rank()));
  });
  // What rank 0 writes must be seen by all.
  std::optional<Probe> mark;
  const fs::path shared = fs::path(folder) / (stem + "-all");
  if (world.rank() == 0 && !result.contains("problem")) {
    const Json failure = attempt(folder, [&] {
      mark.emplace(shared);
      mark->expect(::fsync(mark->file()) == 0);
      return Json::object();
    });
    result.update(failure);
  }
  const bool written = world.all_reduce_max(mark ? 1 : 0, "doctor") > 0;
  const std::string where = world.broadcast_string(fs::absolute(folder).string(), 0, "doctor");
  std::error_code ignored;
  if (written && !result.contains("problem") && !fs::exists(shared, ignored)) {
    result["problem"] = fmt::format(
        "{} does not show the file that rank 0 has written in {}: give one folder that all hosts "
        "share (--output.dir)",
        fs::absolute(folder).string(), where);
  }
  world.barrier("doctor");  // before the file goes
  mark.reset();
  world.barrier("doctor");  // before the folders go
  return result;
}

}  // namespace minwm::apps
