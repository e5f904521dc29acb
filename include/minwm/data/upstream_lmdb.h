#pragma once
// Reads LMDB environments of published data sets.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::data {

/// One LMDB folder (`data.mdb`), read only and without a lock file, so that it may lie on a
/// read-only disk. Thread-safe.
///
/// A file cut short is noticed when it is opened. LMDB has no checksums: bytes changed inside the
/// file may go unnoticed, or end the program.
class Lmdb {
 public:
  /// @throws Error naming the folder: absent, not an LMDB file, truncated.
  explicit Lmdb(const std::filesystem::path& folder);
  ~Lmdb();
  Lmdb(Lmdb&&) noexcept;

  /// @throws Error naming the folder and the key if it is absent.
  std::string get(const std::string& key) const;
  bool contains(const std::string& key) const;

  /// The numbers of NAME_shape: rows first. @throws Error if it is absent or malformed.
  std::vector<int64_t> shape(const std::string& name) const;
  /// NAME_<row>_data as a tensor of the shape that NAME_shape gives a row. @throws Error naming the
  /// key if it is absent or has another size.
  at::Tensor row(const std::string& name, int64_t row, at::ScalarType dtype) const;
  /// NAME_<row>_data as text.
  std::string text(const std::string& name, int64_t row) const;
  const std::string& folder() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// `folder` itself if it holds data.mdb, else its subfolders that do, sorted by name: a data set is
/// one environment or several. @throws Error if there is none.
std::vector<std::filesystem::path> lmdb_folders(const std::filesystem::path& folder);

}  // namespace minwm::data
