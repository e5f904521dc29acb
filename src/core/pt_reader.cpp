#include "minwm/core/pt_reader.h"

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "unpickler.h"
#include "zip_archive.h"

namespace minwm {
namespace {

/// Reads each storage once, so that tensors that shared one do so again.
class Storages {
 public:
  Storages(const ZipArchive& archive, std::string folder)
      : archive_(archive), folder_(std::move(folder)) {}

  at::Tensor load(const StorageReference& reference) {
    const std::string name = folder_ + "data/" + reference.key;
    if (const auto known = loaded_.find(reference.key); known != loaded_.end()) {
      require(known->second.scalar_type() == reference.dtype &&
                  known->second.numel() == reference.numel,
              "{}: storage '{}' is used with two types or sizes", archive_.file(), name);
      return known->second;
    }
    const auto element = static_cast<uint64_t>(c10::elementSize(reference.dtype));
    const uint64_t bytes = archive_.size(name);
    require(bytes / element == static_cast<uint64_t>(reference.numel) && bytes % element == 0,
            "{}: storage '{}' has {} bytes, expected {} elements of {}", archive_.file(), name,
            bytes, reference.numel, c10::toString(reference.dtype));
    at::Tensor elements = at::empty({reference.numel}, reference.dtype);
    archive_.read(name, static_cast<char*>(elements.mutable_data_ptr()));
    return loaded_[reference.key] = elements;
  }

 private:
  const ZipArchive& archive_;
  std::string folder_;
  std::map<std::string, at::Tensor> loaded_;
};

template <class T>
const T& get(const PtValue& value, std::string_view where, const char* expected) {
  const T* found = std::get_if<T>(&value.variant());
  require(found != nullptr, "{} is {}, expected {}", where, value.type_name(), expected);
  return *found;
}

}  // namespace

const char* PtValue::type_name() const {
  constexpr const char* kNames[] = {"None",     "a bool",   "an integer", "a float",
                                    "a string", "a tensor", "a list",     "a dict"};
  return kNames[value_.index()];
}

const at::Tensor& PtValue::tensor(std::string_view where) const {
  return get<at::Tensor>(*this, where, "a tensor");
}
const std::string& PtValue::string(std::string_view where) const {
  return get<std::string>(*this, where, "a string");
}
int64_t PtValue::integer(std::string_view where) const {
  return get<int64_t>(*this, where, "an integer");
}
double PtValue::number(std::string_view where) const {
  const auto* whole = std::get_if<int64_t>(&value_);
  return whole != nullptr ? static_cast<double>(*whole) : get<double>(*this, where, "a number");
}
bool PtValue::boolean(std::string_view where) const {
  return get<bool>(*this, where, "a bool");
}
const PtValue::List& PtValue::list(std::string_view where) const {
  return *get<std::shared_ptr<List>>(*this, where, "a list");
}
const PtDict& PtValue::dict(std::string_view where) const {
  return *get<std::shared_ptr<PtDict>>(*this, where, "a dict");
}

void PtDict::set(const Key& key, PtValue value) {
  const auto [place, added] = index.emplace(key, items.size());
  if (added) {
    items.emplace_back(key, std::move(value));
  } else {
    items[place->second].second = std::move(value);
  }
}

const PtValue* PtDict::find(const Key& key) const {
  const auto found = index.find(key);
  return found == index.end() ? nullptr : &items[found->second].second;
}

const PtValue& PtDict::at(const std::string& key, std::string_view where) const {
  const PtValue* found = find(key);
  require(found != nullptr, "{} has no '{}'", where, key);
  return *found;
}

PtValue read_pt(const std::filesystem::path& path) {
  const ZipArchive archive(path);
  const std::string program = archive.find_in_top_folder("data.pkl");
  const std::string folder = program.substr(0, program.find('/') + 1);
  if (const std::string order = folder + "byteorder"; archive.contains(order)) {
    const std::string stored = archive.read(order);
    require(stored == "little", "{}: byte order '{}', expected 'little'", archive.file(), stored);
  }
  Storages storages(archive, folder);
  return unpickle(archive.read(program), archive.file(),
                  [&](const StorageReference& reference) { return storages.load(reference); });
}

}  // namespace minwm
