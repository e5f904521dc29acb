#include "safetensors_header.h"

#include <algorithm>
#include <cstring>

#include "minwm/core/error.h"

namespace minwm::safetensors {

Header::Header(const std::filesystem::path& path,
               const std::map<std::string, std::string>& metadata)
    : file_(path.string()), json_(nlohmann::ordered_json::object()) {
  if (!metadata.empty()) {
    json_["__metadata__"] = metadata;
  }
}

void Header::add(const std::string& name, at::ScalarType type, const std::vector<int64_t>& shape,
                 uint64_t bytes) {
  require(name != "__metadata__" && !json_.contains(name), "{}: tensor '{}' is given twice", file_,
          name);
  const auto* dtype = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                   [&](const DtypeName& known) { return known.type == type; });
  require(dtype != std::end(kDtypes), "{}: tensor '{}' has dtype {}, which cannot be stored", file_,
          name, c10::toString(type));
  const uint64_t end = offset_ + bytes;
  json_[name] = {{"dtype", dtype->name}, {"shape", shape}, {"data_offsets", {offset_, end}}};
  offset_ = end;
}

std::string Header::bytes() const {
  std::string text = json_.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const auto length = static_cast<uint64_t>(text.size());
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);  // the format is little-endian, as are our machines
  return bytes + text;
}

}  // namespace minwm::safetensors
