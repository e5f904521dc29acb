// Elements between tensors and datasets: whole ones, rows, and ranges in row-major order, all of
// which are ranges.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <numeric>

#include <fcntl.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <spdlog/fmt/ranges.h>

#include "hdf5_file.h"

namespace minwm::hdf5 {
namespace {

/// Longest move under one holding of the lock: a tenth of a second on a slow disk, and long enough
/// to cost nothing.
constexpr int64_t kPieceBytes = int64_t{64} << 20;

int64_t product(const std::vector<int64_t>& shape, size_t from) {
  return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(from), shape.end(), int64_t{1},
                         std::multiplies<>());
}

/// A box of an n-dimensional dataset whose elements lie side by side in row-major order.
struct Box {
  std::vector<hsize_t> start, count;
};

/// Appends the boxes of the range [begin, end) of one row of axis `axis`, in row-major order: the
/// tail of a row, whole rows, the head of a row; at most 2 n - 1 (spec parallel 5).
void add_boxes(const std::vector<int64_t>& shape, size_t axis, const std::vector<hsize_t>& above,
               int64_t begin, int64_t end, std::vector<Box>& boxes) {
  const int64_t inner = product(shape, axis + 1);
  const auto below = [&](int64_t row, int64_t from, int64_t to) {
    auto start = above;
    start.push_back(static_cast<hsize_t>(row));
    add_boxes(shape, axis + 1, start, from, to, boxes);
  };
  int64_t first = begin / inner;
  const int64_t last = end / inner;
  const int64_t skipped = begin % inner, rest = end % inner;
  if (first == last) {
    below(first, skipped, rest);
    return;
  }
  if (skipped > 0) {
    below(first++, skipped, inner);
  }
  if (first < last) {
    Box box{above, std::vector<hsize_t>(above.size(), 1)};
    box.start.push_back(static_cast<hsize_t>(first));
    box.count.push_back(static_cast<hsize_t>(last - first));
    for (size_t i = axis + 1; i < shape.size(); ++i) {
      box.start.push_back(0);
      box.count.push_back(static_cast<hsize_t>(shape[i]));
    }
    boxes.push_back(std::move(box));
  }
  if (rest > 0) {
    below(last, 0, rest);
  }
}

at::Tensor plain(const at::Tensor& tensor) {
  return tensor.detach().to(at::kCPU).contiguous();
}

}  // namespace

void File::Impl::fail_to_write(const std::string& name, uint64_t bytes) const {
  std::string why = reason();
  H5Eclear2(H5E_DEFAULT);
  std::error_code ignored;
  // MPI-IO keeps the system's reason to itself.
  if (parallel && std::filesystem::space(path, ignored).available < bytes) {
    why = "No space left on device";
  }
  fail("{}: cannot write '{}': {}", path.string(), name, why);
}

void File::Impl::transfer(const std::string& name, const std::vector<int64_t>& shape, int64_t begin,
                          const at::Tensor& plain, bool writing) const {
  const hid_t type = native_type(plain.scalar_type());
  const auto width = static_cast<int64_t>(plain.element_size());
  // Through the bytes, not through views: const data must not be asked to become mutable.
  char* const bytes = writing ? const_cast<char*>(static_cast<const char*>(plain.const_data_ptr()))
                              : static_cast<char*>(plain.mutable_data_ptr());
  const auto move = [&](hid_t data, hid_t memory, hid_t space, int64_t at, int64_t count) {
    if (!writing) {
      check(H5Dread(data, type, memory, space, H5P_DEFAULT, bytes + at * width),
            "cannot read '" + name + "'");
    } else if (H5Dwrite(data, type, memory, space, H5P_DEFAULT, bytes + at * width) < 0) {
      fail_to_write(name, static_cast<uint64_t>(count * width));
    }
  };
  const int64_t longest = kPieceBytes / width;
  for (int64_t done = 0; done < plain.numel(); done += longest) {
    const Lock lock;
    const Handle data = dataset(name);
    const int64_t end = std::min(done + longest, plain.numel());
    if (shape.empty()) {
      move(data, H5S_ALL, H5S_ALL, 0, 1);
      continue;
    }
    std::vector<Box> boxes;
    add_boxes(shape, 0, {}, begin + done, begin + end, boxes);
    const Handle space(H5Dget_space(data), H5Sclose);
    int64_t at = done;
    for (const Box& box : boxes) {
      const hsize_t count =
          std::accumulate(box.count.begin(), box.count.end(), hsize_t{1}, std::multiplies<>());
      check(H5Sselect_hyperslab(space, H5S_SELECT_SET, box.start.data(), nullptr, box.count.data(),
                                nullptr),
            "dataset '" + name + "'");
      const Handle memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
      move(data, memory, space, at, static_cast<int64_t>(count));
      at += static_cast<int64_t>(count);
    }
  }
}

void File::write(const std::string& name, const at::Tensor& tensor) {
  const at::Tensor values = plain(tensor);
  if (!contains(name)) {
    create_dataset(name, values.scalar_type(), values.sizes().vec());
  }
  const auto stored = shape(name);
  require(stored == values.sizes().vec(), "{}: dataset '{}' is {}, expected {}",
          impl_->path.string(), name, fmt::join(stored, " x "), fmt::join(values.sizes(), " x "));
  impl_->transfer(name, stored, 0, values, true);
}

at::Tensor File::read(const std::string& name) const {
  const auto stored = shape(name);
  at::Tensor tensor = at::empty(stored, type(name));
  impl_->transfer(name, stored, 0, tensor, false);
  return tensor;
}

namespace {

/// Checks that rows [first, first + rows[0]) of shape `rows` fit; returns the first element's
/// index.
int64_t row_offset(const std::filesystem::path& path, const std::string& name,
                   const std::vector<int64_t>& stored, int64_t first, at::IntArrayRef rows) {
  require(!stored.empty() && stored.size() == rows.size() &&
              rows.slice(1) == at::IntArrayRef(stored).slice(1),
          "{}: dataset '{}' is {}, expected rows of {}", path.string(), name,
          fmt::join(stored, " x "), fmt::join(rows, " x "));
  require(first >= 0 && rows[0] >= 0 && first + rows[0] <= stored[0],
          "{}: dataset '{}': rows {} to {} are outside of its {}", path.string(), name, first,
          first + rows[0], stored[0]);
  return first * product(stored, 1);
}

void require_range(const std::filesystem::path& path, const std::string& name,
                   const std::vector<int64_t>& stored, int64_t begin, int64_t count) {
  const int64_t numel = product(stored, 0);
  require(begin >= 0 && count >= 0 && begin <= numel && count <= numel - begin,
          "{}: dataset '{}': {} elements from {} on are outside of its {}", path.string(), name,
          count, begin, numel);
}

}  // namespace

void File::write_rows(const std::string& name, int64_t first, const at::Tensor& rows) {
  const auto stored = shape(name);
  impl_->transfer(name, stored, row_offset(impl_->path, name, stored, first, rows.sizes()),
                  plain(rows), true);
}

at::Tensor File::read_rows(const std::string& name, int64_t first, int64_t count) const {
  const auto stored = shape(name);
  auto dims = stored;
  dims.at(0) = count;
  const int64_t begin = row_offset(impl_->path, name, stored, first, dims);
  at::Tensor rows = at::empty(dims, type(name));
  impl_->transfer(name, stored, begin, rows, false);
  return rows;
}

void File::write_range(const std::string& name, int64_t begin, const at::Tensor& values) {
  const auto stored = shape(name);
  require_range(impl_->path, name, stored, begin, values.numel());
  require(type(name) == values.scalar_type(), "{}: dataset '{}' is of {}, expected {}",
          impl_->path.string(), name, c10::toString(type(name)),
          c10::toString(values.scalar_type()));
  impl_->transfer(name, stored, begin, plain(values), true);
}

at::Tensor File::read_range(const std::string& name, int64_t begin, int64_t count) const {
  const auto stored = shape(name);
  require_range(impl_->path, name, stored, begin, count);
  at::Tensor values = at::empty({count}, type(name));
  impl_->transfer(name, stored, begin, values, false);
  return values;
}

void File::sync_data() const {
  const std::string name = impl_->path.string();
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
  require(descriptor >= 0, "{}: cannot be opened: {}", name, std::strerror(errno));
  const int code = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  require(code == 0, "{}: cannot be synced: {}", name, std::strerror(code));
}

}  // namespace minwm::hdf5
