#pragma once
// What reading and writing safetensors files share: names of types, and the header of a new file.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

namespace minwm::safetensors {

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                                 {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                                 {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                                 {"BOOL", at::kBool}};

/// The header of a file in which tensors follow one another in the order they are added.
class Header {
 public:
  /// `path` is for messages.
  Header(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata);
  /// @throws Error naming file and tensor if the name was given before or the type has no name.
  void add(const std::string& name, at::ScalarType type, const std::vector<int64_t>& shape,
           uint64_t bytes);
  /// The length field and the header, padded so that the data starts on 8 bytes.
  std::string bytes() const;

 private:
  std::string file_;
  nlohmann::ordered_json json_;
  uint64_t offset_ = 0;
};

}  // namespace minwm::safetensors
