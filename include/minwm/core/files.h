#pragma once
// Files appear under their final name only when complete.

#include <filesystem>
#include <string>
#include <string_view>

namespace minwm {

/// Reads a whole file. @throws Error naming the path if it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Writes to `path`.tmp.<pid>, fsyncs and renames. @throws Error naming path and reason (e.g. "No space left on
/// device"); nothing is left behind then.
void atomic_write(const std::filesystem::path& path, std::string_view content);

/// A temporary name beside `final_path` that a library (FFmpeg, HDF5) writes to. publish() fsyncs and renames
/// it; a destructor without publish removes it.
class PendingFile {
 public:
  explicit PendingFile(std::filesystem::path final_path);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  const std::filesystem::path& path() const { return temporary_; }  ///< keeps the extension of the final name
  void publish();

 private:
  std::filesystem::path final_, temporary_;
  bool published_ = false;
};

/// fsyncs everything in `temporary`, renames it to `final_path` (which must not exist), fsyncs the parent.
void publish_directory(const std::filesystem::path& temporary, const std::filesystem::path& final_path);

/// The folder of shared test and sample data: --data.root if not empty, else $MINWM_DATA_ROOT, else "".
std::filesystem::path data_root(const std::string& option = "");

}  // namespace minwm
