#pragma once
// What the files behind hdf5.h share: the lock of the library, handles, and the open file.

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <ATen/core/Tensor.h>
#include <hdf5.h>

#include "minwm/core/error.h"
#include "minwm/core/hdf5.h"

namespace minwm::hdf5 {

/// Holds the one lock of the library; a thread may hold it more than once. Served in the order of
/// asking: a thread that writes gigabytes in pieces would else take it again before a reader wakes.
class Lock {
 public:
  Lock();
  ~Lock();
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
};

/// Closes an HDF5 handle of any kind.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) {
      close_(id_);
    }
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&&) = delete;
  operator hid_t() const { return id_; }  // NOLINT(google-explicit-constructor): it is a handle

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

/// The deepest message of the error stack: the system's own reason, e.g. "No space left on device".
std::string reason();
/// How a tensor's elements are stored. @throws Error for types that are not.
hid_t native_type(at::ScalarType type);

/// An open file. Everything here is called with the lock held.
struct File::Impl {
  std::filesystem::path path;
  hid_t file = -1;
  bool parallel = false;
  bool left_open = false;
  int exceptions_at_open = std::uncaught_exceptions();

  template <class Status>
  Status check(Status status, const std::string& what) const {
    if (status < 0) {
      const std::string why = reason();
      H5Eclear2(H5E_DEFAULT);
      fail("{}: {}: {}", path.string(), what, why);
    }
    return status;
  }

  Handle access_properties(const void* mpi_comm) const;
  void open(Mode mode, const void* mpi_comm);
  void close();
  Handle dataset(const std::string& name) const;
  Handle object(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  /// Moves the elements [begin, begin + plain.numel()) of a dataset of `shape`, in row-major order,
  /// from or to a contiguous CPU tensor, piece by piece; takes the lock for each piece.
  void transfer(const std::string& name, const std::vector<int64_t>& shape, int64_t begin,
                const at::Tensor& plain, bool writing) const;
  [[noreturn]] void fail_to_write(const std::string& name, uint64_t bytes) const;
};

}  // namespace minwm::hdf5
