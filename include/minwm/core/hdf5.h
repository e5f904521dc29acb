#pragma once
// HDF5 behind RAII: tensors, rows and attributes by name; every failure is one line naming file and
// object. HDF5 is not thread-safe in its parallel build: every call here holds one process-wide
// lock, served in the order of asking; long reads and writes hold it for 64 MiB at a time, so that
// a thread that writes a checkpoint does not keep a data loader waiting.
//
//   hdf5::File file(path, hdf5::File::Mode::kCreate);
//   file.write("model/weight", tensor);
//   file.write_attribute("/", "format", "minwm-checkpoint");
//   file.close();  // reports a full disk; a destructor cannot
//
// No raw data is cached: when a write returns, the bytes are with the operating system. Space is
// allocated when a dataset is created, so writing rows later leaves the file's structure alone and
// a process killed meanwhile leaves a file that opens.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::hdf5 {

class File {
 public:
  enum class Mode { kCreate, kReadOnly, kReadWrite };

  /// Opens or creates (replacing) a file for this process alone.
  /// @throws Error naming the file: missing, not HDF5, truncated, no space.
  File(const std::filesystem::path& path, Mode mode);
  /// Opens or creates through MPI-IO (collective). `mpi_comm` points to an MPI_Comm. One thread of
  /// a process at a time may have such a file: two would wait for the other ranks under one lock.
  File(const std::filesystem::path& path, Mode mode, const void* mpi_comm);
  /// Closes what is open and says nothing of errors; while an exception unwinds, a file under
  /// MPI-IO stays open, because closing is collective and the other ranks may never come.
  ~File();
  File(File&&) noexcept;
  File& operator=(File&&) = delete;

  bool contains(const std::string& name) const;
  /// Paths of all datasets, sorted.
  std::vector<std::string> datasets() const;

  /// Creates a dataset (parents too) with its space; what is not written reads as zero or as old
  /// disk blocks. `chunk_rows` > 0 = chunks of that many rows, 0 = one piece. Collective under
  /// MPI-IO.
  void create_dataset(const std::string& name, at::ScalarType type,
                      const std::vector<int64_t>& shape, int64_t chunk_rows = 0);
  std::vector<int64_t> shape(const std::string& name) const;
  at::ScalarType type(const std::string& name) const;

  /// Writes / reads a whole dataset; write creates it if absent. @throws Error naming file and
  /// dataset: absent, another shape, no space. Reads and writes of any size are independent of
  /// other ranks.
  void write(const std::string& name, const at::Tensor& tensor);
  at::Tensor read(const std::string& name) const;
  /// Rows [first, first + n) of the first axis.
  void write_rows(const std::string& name, int64_t first, const at::Tensor& rows);
  at::Tensor read_rows(const std::string& name, int64_t first, int64_t count) const;
  /// Elements [begin, begin + values.numel()) of the dataset in row-major order, of any number of
  /// axes; `values` of any shape. None at all is fine.
  void write_range(const std::string& name, int64_t begin, const at::Tensor& values);
  /// Elements [begin, begin + count) in row-major order: [count]; only their bytes are read.
  at::Tensor read_range(const std::string& name, int64_t begin, int64_t count) const;

  /// Attributes of an object ("/" = the file); writing is collective under MPI-IO.
  void write_attribute(const std::string& object, const std::string& key, const std::string& value);
  void write_attribute(const std::string& object, const std::string& key, int64_t value);
  bool has_attribute(const std::string& object, const std::string& key) const;
  std::string read_string(const std::string& object, const std::string& key) const;
  int64_t read_integer(const std::string& object, const std::string& key) const;

  /// Returns when what this process wrote of the tensors is on the disk. Takes long, and not the
  /// lock. @throws Error with the system's reason.
  void sync_data() const;
  /// Hands everything to the operating system (under MPI-IO: collective, and to the disk).
  void flush();
  /// Flushes and closes (collective under MPI-IO). Nothing else may be called afterwards.
  /// @throws Error naming the file and the reason, e.g. "No space left on device".
  void close();
  /// The destructor will not close it: under MPI-IO, where the other ranks may never come.
  void leave_open();
  const std::filesystem::path& path() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace minwm::hdf5
