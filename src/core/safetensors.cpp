#include "minwm/core/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "safetensors_header.h"

namespace minwm {
namespace {

using Json = nlohmann::ordered_json;
using safetensors::DtypeName;
using safetensors::kDtypes;

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation

/// A whole file in memory, private and copy-on-write: a stray write to a view changes no file.
class Mapping {
 public:
  explicit Mapping(const std::filesystem::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    require(fd >= 0, "cannot read {}: {}", path.string(), std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? static_cast<uint64_t>(status.st_size) : 0;
    void* address = MAP_FAILED;
    if (size_ > 0) {
      address = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    }
    const int code = errno;
    ::close(fd);
    bytes_ = address == MAP_FAILED ? nullptr : static_cast<char*>(address);
    require(regular, "cannot read {}: not a regular file", path.string());
    require(size_ == 0 || bytes_ != nullptr, "cannot map {}: {}", path.string(),
            std::strerror(code));
  }
  ~Mapping() {
    if (bytes_ != nullptr) {
      ::munmap(bytes_, size_);
    }
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  char* bytes() const { return bytes_; }
  uint64_t size() const { return size_; }

 private:
  char* bytes_ = nullptr;
  uint64_t size_ = 0;
};

struct Entry {
  at::ScalarType dtype{};
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the data
};

/// Parses the header's JSON and refuses a key that is given twice (JSON parsers keep the last).
Json parse_header(const std::string& file, const char* begin, const char* end) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto name = parsed.get<std::string>();
      require(keys.back().insert(name).second, "{}: '{}' is in the header twice", file, name);
    }
    return true;
  };
  require(begin != end && *begin == '{', "{}: the header does not start with '{{'", file);
  try {
    return Json::parse(begin, end, check);
  } catch (const Json::exception& error) {
    fail("{}: the header is not valid JSON: {}", file, error.what());
  }
}

at::ScalarType parse_dtype(const std::string& where, const Json& tensor) {
  require(tensor.contains("dtype") && tensor["dtype"].is_string(), "{}: dtype is missing", where);
  const auto name = tensor["dtype"].get<std::string>();
  for (const DtypeName& known : kDtypes) {
    if (name == known.name) {
      return known.type;
    }
  }
  fail("{}: unknown dtype '{}', expected F64 F32 F16 BF16 I64 I32 I16 I8 U8 or BOOL", where, name);
}

/// Bytes of a tensor of this shape. @throws Error if they do not fit 63 bits.
uint64_t byte_count(const std::string& where, const std::vector<int64_t>& shape, size_t element) {
  // A zero anywhere makes the tensor empty whatever the other sizes are.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    return 0;
  }
  auto total = static_cast<int64_t>(element);
  for (const int64_t size : shape) {
    require(!__builtin_mul_overflow(total, size, &total), "{}: shape is too large", where);
  }
  return static_cast<uint64_t>(total);
}

std::vector<uint64_t> parse_counts(const std::string& where, const Json& tensor, const char* key) {
  require(tensor.contains(key) && tensor[key].is_array(), "{}: {} is not a list", where, key);
  std::vector<uint64_t> counts;
  for (const Json& item : tensor[key]) {
    require(item.is_number_unsigned() && item.get<uint64_t>() <= INT64_MAX,
            "{}: {} holds '{}', expected a whole number of 0 or more", where, key, item.dump());
    counts.push_back(item.get<uint64_t>());
  }
  return counts;
}

Entry parse_entry(const std::string& where, const Json& tensor, uint64_t data_size) {
  require(tensor.is_object(), "{}: expected an object with dtype, shape, data_offsets", where);
  for (const auto& item : tensor.items()) {
    require(item.key() == "dtype" || item.key() == "shape" || item.key() == "data_offsets",
            "{}: unknown field '{}'", where, item.key());
  }
  Entry entry;
  entry.dtype = parse_dtype(where, tensor);
  for (const uint64_t size : parse_counts(where, tensor, "shape")) {
    entry.shape.push_back(static_cast<int64_t>(size));
  }
  const auto offsets = parse_counts(where, tensor, "data_offsets");
  require(offsets.size() == 2 && offsets[0] <= offsets[1],
          "{}: data_offsets must be [begin, end] with begin <= end", where);
  entry.begin = offsets[0];
  entry.end = offsets[1];
  require(entry.end <= data_size, "{}: ends at byte {} of {} data bytes: the file is truncated",
          where, entry.end, data_size);
  const uint64_t expected = byte_count(where, entry.shape, c10::elementSize(entry.dtype));
  require(entry.end - entry.begin == expected, "{}: holds {} bytes, its shape and dtype need {}",
          where, entry.end - entry.begin, expected);
  return entry;
}

}  // namespace

struct Safetensors::Impl {
  explicit Impl(const std::filesystem::path& path) : file(path.string()), mapping(path) {
    require(mapping.size() >= 8, "{}: {} bytes, too short for a safetensors file", file,
            mapping.size());
    uint64_t header_size = 0;
    std::memcpy(&header_size, mapping.bytes(), 8);
    require(header_size <= kMaxHeader && header_size <= mapping.size() - 8,
            "{}: the header claims {} bytes, the file has {}: not a safetensors file or truncated",
            file, header_size, mapping.size());
    data = mapping.bytes() + 8 + header_size;
    const Json header = parse_header(file, mapping.bytes() + 8, data);
    const uint64_t data_size = mapping.size() - 8 - header_size;
    for (const auto& item : header.items()) {
      if (item.key() == "__metadata__") {
        read_metadata(item.value());
      } else {
        const auto where = fmt::format("{}: tensor '{}'", file, item.key());
        entries.emplace(item.key(), parse_entry(where, item.value(), data_size));
        names.push_back(item.key());
      }
    }
    check_coverage(data_size);
  }

  void read_metadata(const Json& json) {
    require(json.is_object(), "{}: __metadata__ is not an object", file);
    for (const auto& item : json.items()) {
      require(item.value().is_string(), "{}: __metadata__ '{}' is not a string", file, item.key());
      metadata.emplace(item.key(), item.value().get<std::string>());
    }
  }

  /// The tensors must fill the data without a gap: anything else is damage or smuggled bytes.
  void check_coverage(uint64_t data_size) {
    std::stable_sort(names.begin(), names.end(), [&](const auto& a, const auto& b) {
      const Entry &x = entries.at(a), &y = entries.at(b);
      return std::pair(x.begin, x.end) < std::pair(y.begin, y.end);
    });
    uint64_t reached = 0;
    for (const std::string& name : names) {
      const Entry& entry = entries.at(name);
      require(entry.begin >= reached, "{}: tensor '{}' overlaps the one before it", file, name);
      require(entry.begin == reached, "{}: a hole of {} bytes before tensor '{}'", file,
              entry.begin - reached, name);
      reached = entry.end;
    }
    require(reached == data_size, "{}: {} bytes after the last tensor", file, data_size - reached);
  }

  const Entry& at(const std::string& name) const {
    const auto found = entries.find(name);
    require(found != entries.end(), "{}: no tensor '{}'", file, name);
    return found->second;
  }

  std::string file;
  Mapping mapping;
  char* data = nullptr;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> names;
  std::map<std::string, Entry> entries;
};

Safetensors::Safetensors(const std::filesystem::path& path) : impl_(std::make_shared<Impl>(path)) {}
Safetensors::~Safetensors() = default;
Safetensors::Safetensors(Safetensors&&) noexcept = default;

const std::map<std::string, std::string>& Safetensors::metadata() const {
  return impl_->metadata;
}
const std::vector<std::string>& Safetensors::names() const {
  return impl_->names;
}
bool Safetensors::contains(const std::string& name) const {
  return impl_->entries.contains(name);
}
std::vector<int64_t> Safetensors::shape(const std::string& name) const {
  return impl_->at(name).shape;
}
at::ScalarType Safetensors::dtype(const std::string& name) const {
  return impl_->at(name).dtype;
}

at::Tensor Safetensors::get(const std::string& name) const {
  const Entry& entry = impl_->at(name);
  at::Tensor out = at::empty(entry.shape, entry.dtype);
  if (entry.end > entry.begin) {
    std::memcpy(out.mutable_data_ptr(), impl_->data + entry.begin, entry.end - entry.begin);
  }
  return out;
}

at::Tensor Safetensors::view(const std::string& name) const {
  const Entry& entry = impl_->at(name);
  char* const begin = impl_->data + entry.begin;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  // Vector loads need aligned elements; an odd offset (after a few bytes of U8, say) is copied.
  if (entry.begin == entry.end || address % c10::elementSize(entry.dtype) != 0) {
    return get(name);
  }
  return at::from_blob(
      begin, entry.shape, [keep = impl_](void*) {}, entry.dtype);
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  safetensors::Header header(path, metadata);
  std::vector<at::Tensor> contiguous;
  for (const auto& [name, tensor] : tensors) {
    contiguous.push_back(tensor.detach().cpu().contiguous());
    header.add(name, tensor.scalar_type(), tensor.sizes().vec(), contiguous.back().nbytes());
  }
  const std::string head = header.bytes();
  std::vector<std::string_view> pieces{head};
  for (const at::Tensor& tensor : contiguous) {
    pieces.emplace_back(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
  }
  atomic_write(path, pieces);
}

}  // namespace minwm
