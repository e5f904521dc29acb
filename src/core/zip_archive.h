#pragma once
// Reads uncompressed entries of a zip file, as PyTorch writes them.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace minwm {

/// An open zip file whose entries are all stored (method 0), zip64 included. Checksums are not
/// looked at: PyTorch may leave them out.
class ZipArchive {
 public:
  /// @throws Error naming the file: unreadable, not a zip file, truncated, a compressed or
  /// encrypted entry, entries that overlap or leave the file, a name that is there twice.
  explicit ZipArchive(const std::filesystem::path& path);
  ~ZipArchive();
  ZipArchive(const ZipArchive&) = delete;
  ZipArchive& operator=(const ZipArchive&) = delete;

  const std::string& file() const { return file_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }
  /// Bytes of an entry. @throws Error if it is absent.
  uint64_t size(const std::string& name) const { return entry(name).size; }
  /// Reads an entry into `out`, which holds size(name) bytes.
  void read(const std::string& name, char* out) const;
  std::string read(const std::string& name) const;
  /// The full name of the only entry that is called `name` in a top folder ("archive/data.pkl").
  /// @throws Error if there is none or more than one.
  std::string find_in_top_folder(const std::string& name) const;

 private:
  struct Entry {
    uint64_t begin = 0, size = 0;  ///< of the data in the file
  };
  struct Directory {
    uint64_t begin = 0, size = 0, entries = 0;
  };
  const Entry& entry(const std::string& name) const;
  void read_at(uint64_t offset, char* out, uint64_t count) const;
  std::string read_at(uint64_t offset, uint64_t count) const;
  Directory find_directory() const;
  void read_directory(const Directory& directory);
  uint64_t data_begin(uint64_t local_header, const std::string& name) const;
  void refuse_overlaps(uint64_t directory_begin) const;

  std::string file_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  std::map<std::string, Entry> entries_;
};

}  // namespace minwm
