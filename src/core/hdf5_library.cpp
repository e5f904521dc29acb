// The lock of the library, its error texts and its types.

#include <ATen/ATen.h>

#include "hdf5_file.h"

namespace minwm::hdf5 {
namespace {

/// Who holds the library, and who is next.
struct Queue {
  std::mutex mutex;
  std::condition_variable served;
  uint64_t next_ticket = 0, serving = 0;
  std::thread::id holder;
  int depth = 0;
};

/// The library starts before main, and so before MPI: else it would close what is still open in
/// MPI_Finalize, which other ranks may not come to, and crash on a file whose close has failed
/// (full disk), which stays registered. Its clean-up at exit would do the same.
[[maybe_unused]] const bool started = [] {
  H5dont_atexit();
  return H5open() >= 0;
}();

Queue& queue() {
  static Queue instance;
  return instance;
}

}  // namespace

Lock::Lock() {
  Queue& line = queue();
  std::unique_lock<std::mutex> guard(line.mutex);
  if (line.depth == 0 || line.holder != std::this_thread::get_id()) {
    const uint64_t ticket = line.next_ticket++;
    line.served.wait(guard, [&] { return line.serving == ticket; });
    line.holder = std::this_thread::get_id();
  }
  ++line.depth;
}

Lock::~Lock() {
  Queue& line = queue();
  const std::lock_guard<std::mutex> guard(line.mutex);
  if (--line.depth == 0) {
    line.holder = {};
    ++line.serving;
    line.served.notify_all();
  }
}

std::string reason() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_DOWNWARD,
      [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
        *static_cast<std::string*>(out) = error->desc != nullptr ? error->desc : "";
        return 0;
      },
      &text);
  const auto message = text.find("error message = '");
  if (message != std::string::npos) {
    text = text.substr(message + 17, text.find('\'', message + 17) - message - 17);
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

hid_t native_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return H5T_NATIVE_FLOAT;
    case at::kDouble:
      return H5T_NATIVE_DOUBLE;
    case at::kLong:
      return H5T_NATIVE_INT64;
    case at::kInt:
      return H5T_NATIVE_INT32;
    case at::kByte:
      return H5T_NATIVE_UINT8;
    case at::kHalf:
    case at::kBFloat16:
      return H5T_NATIVE_UINT16;  // the bits; attribute "dtype" says which
    default:
      fail("HDF5: tensors of type {} are not stored", c10::toString(type));
  }
}

}  // namespace minwm::hdf5
