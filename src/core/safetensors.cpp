#include "minwm/core/safetensors.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm {
namespace {

using Json = nlohmann::ordered_json;
constexpr uint64_t kMaxHeader = 100ULL << 20;  // the format's own limit

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},  {"U8", at::kByte},       {"BOOL", at::kBool}};

struct Entry {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

struct Mapping {
  const char* data = nullptr;
  size_t size = 0;
  ~Mapping() {
    if (data != nullptr) {
      ::munmap(const_cast<char*>(data), size);
    }
  }
};

std::shared_ptr<Mapping> map_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, "{}: cannot be read: {}", path, std::strerror(errno));
  struct stat status {};
  ::fstat(fd, &status);
  auto mapping = std::make_shared<Mapping>();
  mapping->size = static_cast<size_t>(status.st_size);
  void* data = S_ISREG(status.st_mode) && mapping->size >= 8
                   ? ::mmap(nullptr, mapping->size, PROT_READ, MAP_PRIVATE, fd, 0)
                   : MAP_FAILED;
  ::close(fd);
  require(data != MAP_FAILED, "{}: not a safetensors file: {} bytes, expected a header of at least 8", path,
          mapping->size);
  mapping->data = static_cast<const char*>(data);
  return mapping;
}

/// Rejects JSON objects that name a key twice, which nlohmann would silently merge.
Json parse_header(const std::string& path, const char* begin, size_t size) {
  std::vector<std::vector<std::string>> keys;
  bool duplicate = false;
  auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto key = value.get<std::string>();
      duplicate |= std::find(keys.back().begin(), keys.back().end(), key) != keys.back().end();
      keys.back().push_back(key);
    }
    return true;
  };
  Json header = Json::parse(begin, begin + size, watch, false);
  require(!header.is_discarded() && header.is_object(), "{}: safetensors header is not a JSON object", path);
  require(!duplicate, "{}: safetensors header names a tensor twice", path);
  return header;
}

Entry parse_entry(const std::string& path, const std::string& name, const Json& json) {
  Entry entry;
  const bool shaped = json.is_object() && json.contains("dtype") && json.contains("shape") &&
                      json.contains("data_offsets") && json["dtype"].is_string() && json["shape"].is_array() &&
                      json["data_offsets"].is_array() && json["data_offsets"].size() == 2;
  require(shaped, "{}: tensor '{}': header entry lacks dtype, shape or data_offsets", path, name);
  const auto dtype = json["dtype"].get<std::string>();
  const auto* found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                   [&](const DtypeName& d) { return dtype == d.name; });
  require(found != std::end(kDtypes), "{}: tensor '{}': unknown dtype '{}'", path, name, dtype);
  entry.dtype = found->type;
  uint64_t bytes = at::elementSize(entry.dtype);
  for (const auto& dim : json["shape"]) {
    require(dim.is_number_unsigned(), "{}: tensor '{}': shape holds something else than sizes", path, name);
    const auto n = dim.get<uint64_t>();
    require(n == 0 || bytes <= (1ULL << 62) / n, "{}: tensor '{}': shape is too large", path, name);
    bytes *= n;
    entry.shape.push_back(static_cast<int64_t>(n));
  }
  for (const auto& offset : json["data_offsets"]) {
    require(offset.is_number_unsigned(), "{}: tensor '{}': data_offsets are not whole numbers", path, name);
  }
  entry.begin = json["data_offsets"][0].get<uint64_t>();
  entry.end = json["data_offsets"][1].get<uint64_t>();
  require(entry.end >= entry.begin && entry.end - entry.begin == bytes,
          "{}: tensor '{}': offsets {}..{} do not match its {} bytes", path, name, entry.begin, entry.end, bytes);
  return entry;
}

}  // namespace

struct Safetensors::Impl {
  std::string path;
  std::shared_ptr<Mapping> mapping;
  const char* data = nullptr;
  std::map<std::string, std::string> metadata;
  std::map<std::string, Entry> entries;
  std::vector<std::string> names;

  const Entry& find(const std::string& name) const {
    const auto found = entries.find(name);
    require(found != entries.end(), "{}: has no tensor '{}'", path, name);
    return found->second;
  }
};

Safetensors::Safetensors(const std::filesystem::path& path) : impl_(std::make_shared<Impl>()) {
  auto& s = *impl_;
  s.path = path.string();
  s.mapping = map_file(s.path);
  uint64_t header_size = 0;
  std::memcpy(&header_size, s.mapping->data, sizeof(header_size));
  require(header_size <= kMaxHeader && header_size <= s.mapping->size - 8,
          "{}: truncated or not safetensors: header of {} bytes in a file of {}", s.path, header_size, s.mapping->size);
  const Json header = parse_header(s.path, s.mapping->data + 8, header_size);
  s.data = s.mapping->data + 8 + header_size;
  const uint64_t data_size = s.mapping->size - 8 - header_size;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") {
      require(json.is_object(), "{}: __metadata__ is not an object", s.path);
      for (const auto& [key, value] : json.items()) {
        require(value.is_string(), "{}: metadata '{}' is not a string", s.path, key);
        s.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    s.entries[name] = parse_entry(s.path, name, json);
    s.names.push_back(name);
  }
  std::stable_sort(s.names.begin(), s.names.end(),
                   [&](const auto& a, const auto& b) { return s.entries.at(a).begin < s.entries.at(b).begin; });
  uint64_t expected = 0;
  for (const auto& name : s.names) {
    const Entry& entry = s.entries.at(name);
    require(entry.begin >= expected, "{}: tensor '{}' overlaps the one before it", s.path, name);
    require(entry.begin == expected, "{}: a hole of {} bytes before tensor '{}'", s.path, entry.begin - expected, name);
    require(entry.end <= data_size, "{}: truncated: tensor '{}' ends at byte {} of {}", s.path, name, entry.end,
            data_size);
    expected = entry.end;
  }
  require(expected == data_size, "{}: {} bytes after the last tensor", s.path, data_size - expected);
}

Safetensors::~Safetensors() = default;
Safetensors::Safetensors(Safetensors&&) noexcept = default;

const std::map<std::string, std::string>& Safetensors::metadata() const { return impl_->metadata; }
const std::vector<std::string>& Safetensors::names() const { return impl_->names; }
bool Safetensors::contains(const std::string& name) const { return impl_->entries.count(name) != 0; }
std::vector<int64_t> Safetensors::shape(const std::string& name) const { return impl_->find(name).shape; }
at::ScalarType Safetensors::dtype(const std::string& name) const { return impl_->find(name).dtype; }

at::Tensor Safetensors::get(const std::string& name) const {
  const Entry& entry = impl_->find(name);
  at::Tensor out = at::empty(entry.shape, entry.dtype);
  if (out.numel() > 0) {
    // memcpy, not a view: the data need not be aligned to its element size.
    std::memcpy(out.mutable_data_ptr(), impl_->data + entry.begin, entry.end - entry.begin);
  }
  return out;
}

at::Tensor Safetensors::view(const std::string& name) const {
  const Entry& entry = impl_->find(name);
  const char* data = impl_->data + entry.begin;
  if (reinterpret_cast<uintptr_t>(data) % at::elementSize(entry.dtype) != 0) {
    return get(name);
  }
  return at::from_blob(const_cast<char*>(data), entry.shape, [keep = impl_](void*) {}, at::TensorOptions(entry.dtype));
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    header["__metadata__"] = metadata;
  }
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    require(!header.contains(name), "{}: tensor '{}' is written twice", path.string(), name);
    const auto* found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                     [&, type = tensor.scalar_type()](const DtypeName& d) { return type == d.type; });
    require(found != std::end(kDtypes), "{}: tensor '{}': dtype {} has no safetensors name", path.string(), name,
            c10::toString(tensor.scalar_type()));
    const uint64_t end = offset + tensor.nbytes();
    header[name] = {{"dtype", found->name}, {"shape", tensor.sizes().vec()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts aligned
  PendingFile pending(path);
  std::ofstream out(pending.path(), std::ios::binary);
  const uint64_t size = text.size();
  out.write(reinterpret_cast<const char*>(&size), sizeof(size));
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
    out.write(static_cast<const char*>(plain.const_data_ptr()), static_cast<std::streamsize>(plain.nbytes()));
  }
  out.close();
  require(out.good(), "{}: cannot be written: {}", path.string(), std::strerror(errno));
  pending.publish();
}

}  // namespace minwm
