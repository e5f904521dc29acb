#pragma once
// TensorBoard event files: TFRecord frames around protobuf messages, both written by hand (three
// message types, no library). A log folder may hold several files; TensorBoard joins them.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace minwm::train {

/// CRC-32C (Castagnoli) of `bytes`.
uint32_t crc32c(std::string_view bytes);

/// One TFRecord: length (8 bytes), its masked crc, the payload, its masked crc; little endian.
std::string tfrecord(std::string_view payload);

/// Writes scalars to a new file `folder`/events.out.tfevents.<seconds>.<host>.
class EventWriter {
 public:
  /// `first_step`: what older files of the folder hold from this step on no longer counts (a
  /// resumed run).
  /// @throws Error if the file cannot be made.
  EventWriter(const std::filesystem::path& folder, int64_t first_step);
  /// One point of each curve. Reaches the file at once. @throws Error, e.g. on a full disk.
  void scalars(int64_t step, const std::map<std::string, double>& values);

 private:
  void write(std::string_view event);

  std::filesystem::path path_;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace minwm::train
