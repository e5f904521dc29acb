#pragma once
// JSON files of tokenizers, read with one line of error for whatever is wrong with them.

#include <filesystem>

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::models {

/// body(json) with the parsed file. Json = nlohmann::ordered_json keeps the order of the file, at a
/// cost that grows with the square of its entries.
/// @throws Error naming the file and what is wrong; every error of JSON inside of body is one too.
template <class Json = nlohmann::json, class Body>
auto with_json_file(const std::filesystem::path& path, const Body& body) {
  const std::string text = read_file(path);
  try {
    const auto json = Json::parse(text);
    require(json.is_object(), "{}: a JSON object was expected", path.string());
    return body(json);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not the JSON that was expected ({})", path.string(), error.what());
  }
}

}  // namespace minwm::models
