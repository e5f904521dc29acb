#pragma once
// Files appear under their final name only when complete.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace minwm {

/// Reads a whole file. @throws Error naming the path if it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Writes to a temporary name beside `path`, fsyncs and renames; makes missing parent folders.
/// @throws Error naming path and reason (e.g. "No space left on device"); nothing is left behind
/// then, and a file that was at `path` is still there.
void atomic_write(const std::filesystem::path& path, std::string_view content);
/// The same for content in pieces.
void atomic_write(const std::filesystem::path& path, const std::vector<std::string_view>& pieces);

/// A temporary name beside `final_path` that a library (FFmpeg, HDF5) writes to. publish() fsyncs
/// and renames it; a destructor without publish removes it. Makes missing parent folders.
class PendingFile {
 public:
  explicit PendingFile(std::filesystem::path final_path);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  /// Where to write: a new name with the extension of the final one.
  const std::filesystem::path& path() const { return temporary_; }
  /// @throws Error naming path and reason; the temporary file is removed then.
  void publish();

 private:
  std::filesystem::path final_, temporary_;
  bool published_ = false;
};

/// fsyncs everything in `temporary`, renames it to `final_path` (which must not exist), fsyncs the
/// parent. @throws Error naming path and reason; `temporary` stays then.
void publish_directory(const std::filesystem::path& temporary,
                       const std::filesystem::path& final_path);

/// The folder of shared test and sample data: `option` if not empty, else $MINWM_DATA_ROOT, else
/// "".
std::filesystem::path data_root(const std::string& option = "");

}  // namespace minwm
