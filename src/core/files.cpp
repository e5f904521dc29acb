#include "minwm/core/files.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "minwm/core/error.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const char* action, const fs::path& path, int code) {
  fail("cannot {} {}: {}", action, path.string(), std::strerror(code));
}

class FileDescriptor {
 public:
  FileDescriptor(const fs::path& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~FileDescriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }
  /// Some file systems report a full disk only here.
  int close() {
    const int result = ::close(fd_);
    fd_ = -1;
    return result;
  }

 private:
  int fd_;
};

void write_all(int fd, std::string_view content, const fs::path& shown) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      fail_errno("write", shown, errno);
    }
    content.remove_prefix(static_cast<size_t>(written));
  }
}

void sync_path(const fs::path& path) {
  const FileDescriptor file(path, O_RDONLY);
  if (file.get() < 0) {
    fail_errno("open", path, errno);
  }
  // EINVAL: a file system that cannot sync this kind of file has nothing to lose either.
  if (::fsync(file.get()) != 0 && errno != EINVAL) {
    fail_errno("write", path, errno);
  }
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

void make_parent(const fs::path& path) {
  std::error_code error;
  fs::create_directories(parent_of(path), error);
  if (error) {
    fail_errno("make the folder of", path, error.value());
  }
}

fs::path temporary_name(const fs::path& path) {
  static std::atomic<int> counter{0};
  fs::path name = path.stem();
  name += fmt::format(".tmp.{}.{}", ::getpid(), counter++);
  name += path.extension();
  return path.parent_path() / name;
}

}  // namespace

std::string read_file(const fs::path& path) {
  const FileDescriptor file(path, O_RDONLY);
  if (file.get() < 0) {
    fail_errno("read", path, errno);
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) {
    fail_errno("read", path, errno);
  }
  std::string content;
  content.reserve(static_cast<size_t>(status.st_size));
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(file.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      fail_errno("read", path, errno);
    }
    if (n == 0) {
      return content;
    }
    content.append(buffer, static_cast<size_t>(n));
  }
}

void atomic_write(const fs::path& path, std::string_view content) {
  atomic_write(path, std::vector<std::string_view>{content});
}

void atomic_write(const fs::path& path, const std::vector<std::string_view>& pieces) {
  PendingFile pending(path);
  {
    FileDescriptor file(pending.path(), O_WRONLY | O_CREAT | O_EXCL);
    if (file.get() < 0) {
      fail_errno("write", path, errno);
    }
    for (const std::string_view piece : pieces) {
      write_all(file.get(), piece, path);
    }
    if (file.close() != 0) {
      fail_errno("write", path, errno);
    }
  }
  pending.publish();
}

PendingFile::PendingFile(fs::path final_path)
    : final_(std::move(final_path)), temporary_(temporary_name(final_)) {
  require(final_.has_filename(), "cannot write '{}': a file name is missing", final_.string());
  make_parent(final_);
}

PendingFile::~PendingFile() {
  if (!published_) {
    ::unlink(temporary_.c_str());
  }
}

void PendingFile::publish() {
  sync_path(temporary_);
  if (::rename(temporary_.c_str(), final_.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    fail_errno("write", final_, code);
  }
  published_ = true;
  sync_path(parent_of(final_));
}

void publish_directory(const fs::path& temporary, const fs::path& final_path) {
  require(fs::is_directory(temporary), "cannot publish {}: not a folder", temporary.string());
  require(!fs::exists(fs::symlink_status(final_path)), "cannot publish {}: {} exists already",
          temporary.string(), final_path.string());
  for (const auto& entry : fs::recursive_directory_iterator(temporary)) {
    if (entry.is_regular_file() || entry.is_directory()) {
      sync_path(entry.path());
    }
  }
  sync_path(temporary);
  if (::rename(temporary.c_str(), final_path.c_str()) != 0) {
    fail_errno("write", final_path, errno);
  }
  sync_path(parent_of(final_path));
}

fs::path data_root(const std::string& option) {
  if (!option.empty()) {
    return option;
  }
  const char* environment = std::getenv("MINWM_DATA_ROOT");
  return environment == nullptr ? "" : environment;
}

}  // namespace minwm
