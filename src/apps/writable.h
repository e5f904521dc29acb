#pragma once
// Found out before minutes of work, not after them.

#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::apps {

/// Makes the missing folders of `path` and tries to create a file beside it; leaves no file behind.
/// @throws Error naming path and reason.
inline void require_writable(const std::filesystem::path& path) {
  require(!std::filesystem::is_directory(path), "cannot write {}: it is a folder", path.string());
  const PendingFile probe(path);
  const int file = ::open(probe.path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const std::error_code reason(errno, std::generic_category());
  require(file >= 0, "cannot write {}: {}", path.string(), reason.message());
  ::close(file);
}

}  // namespace minwm::apps
