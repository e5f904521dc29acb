#include "minwm/models/weights_file.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/core/pt_reader.h"
#include "minwm/core/sharded_safetensors.h"

namespace minwm::models {
namespace {

namespace fs = std::filesystem;

constexpr auto kStates = std::to_array<std::string_view>(
    {"generator_ema", "generator", "model", "module", "ema", "state_dict"});
constexpr auto kWrappers = std::to_array<std::string_view>(
    {"_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod."});
constexpr auto kStems = std::to_array<const char*>({"diffusion_pytorch_model", "model"});

bool is_weights(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
         name.ends_with(".pt") || name.ends_with(".pth");
}

std::string without_prefixes(std::string name) {
  for (const auto wrapper : kWrappers) {
    for (size_t at = name.find(wrapper); at != std::string::npos; at = name.find(wrapper, at)) {
      name.erase(at, wrapper.size());
    }
  }
  const auto strip = [&name](std::string_view prefix) {
    const bool there = name.starts_with(prefix);
    name.erase(0, there ? prefix.size() : 0);
    return there;
  };
  strip("module.");
  if (!strip("model.diffusion_model.")) {
    strip("model.");
  }
  return name;
}

/// The file of a folder that well-known names or being alone point to.
std::optional<fs::path> known_file(const fs::path& folder) {
  for (const char* stem : kStems) {
    for (const char* extension : {".safetensors", ".safetensors.index.json", ".pt"}) {
      const fs::path path = folder / (std::string(stem) + extension);
      if (fs::is_regular_file(path)) {
        return path;
      }
    }
  }
  return std::nullopt;
}

fs::path find_file(const fs::path& path) {
  require(fs::exists(path), "{}: does not exist", path.string());
  if (!fs::is_directory(path)) {
    require(is_weights(path),
            "{}: expected a .safetensors, .safetensors.index.json, .pt or .pth file, or a folder "
            "with one",
            path.string());
    return path;
  }
  for (const auto& folder : {path, path / "transformer"}) {
    if (const auto found = known_file(folder)) {
      return *found;
    }
  }
  std::vector<std::string> names;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_regular_file() && is_weights(entry.path())) {
      files.push_back(entry.path());
      names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  require(!files.empty(), "{}: holds no weights (.safetensors, .safetensors.index.json, .pt, .pth)",
          path.string());
  require(files.size() == 1, "{}: holds several files of weights, name one: {}", path.string(),
          fmt::join(names, ", "));
  return files.front();
}

/// Their name of each of ours, which are theirs if not to be unwrapped. @throws Error if two are
/// one.
std::map<std::string, std::string> clean_names(const std::vector<std::string>& names,
                                               const std::string& where, bool unwrap) {
  std::map<std::string, std::string> theirs;
  for (const auto& name : names) {
    const std::string own = unwrap ? without_prefixes(name) : name;
    const auto [place, added] = theirs.emplace(own, name);
    require(added, "{}: '{}' and '{}' are both '{}' without the prefixes of wrappers", where,
            place->second, name, own);
  }
  return theirs;
}

WeightsFile open_safetensors(const fs::path& path, bool unwrap) {
  const auto file = std::make_shared<const ShardedSafetensors>(path);
  WeightsFile out;
  out.layout = path.extension() == ".json" ? "sharded safetensors" : "safetensors";
  out.metadata = file->metadata();
  const auto theirs = clean_names(file->names(), path.string(), unwrap);
  for (const auto& [own, name] : theirs) {
    out.source.shapes[own] = file->shape(name);
  }
  out.source.read = [file, theirs](const std::string& name, int64_t begin, int64_t count) {
    return file->view(theirs.at(name)).view(-1).narrow(0, begin, count);
  };
  return out;
}

/// The dict of tensors in a .pt file, and its key.
std::pair<const PtDict*, std::string> choose_state(const PtValue& root, const std::string& wanted,
                                                   const std::string& where) {
  const PtDict& dict = root.dict(where);
  if (!wanted.empty()) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : dict.items) {
      if (value.is_dict() && std::holds_alternative<std::string>(key)) {
        keys.push_back(std::get<std::string>(key));
      }
    }
    const PtValue* found = dict.find(wanted);
    require(found != nullptr, "{}: holds no state '{}'{}", where, wanted,
            keys.empty() ? std::string(", it is a state itself")
                         : fmt::format(", but {}", fmt::join(keys, ", ")));
    return {&found->dict(fmt::format("{}: '{}'", where, wanted)), wanted};
  }
  for (const auto state : kStates) {
    const PtValue* found = dict.find(std::string(state));
    if (found != nullptr && found->is_dict()) {
      return {&found->dict(where), std::string(state)};
    }
  }
  return {&dict, ""};
}

WeightsFile open_pt(const fs::path& path, const std::string& state, bool unwrap) {
  const std::string where = path.string();
  const PtValue root = read_pt(path);
  const auto [dict, key] = choose_state(root, state, where);
  std::map<std::string, at::Tensor> tensors;
  std::vector<std::string> names;
  for (const auto& [name, value] : dict->items) {
    require(std::holds_alternative<std::string>(name), "{}: a tensor's name is a number", where);
    const auto& text = std::get<std::string>(name);
    tensors[text] = value.tensor(fmt::format("{}: '{}'", where, text));
    names.push_back(text);
  }
  require(!names.empty(), "{}: holds no tensors", where);
  WeightsFile out;
  out.layout = "pt";
  out.state = key;
  const auto theirs = clean_names(names, where, unwrap);
  std::map<std::string, at::Tensor> ours;
  for (const auto& [own, name] : theirs) {
    out.source.shapes[own] = tensors.at(name).sizes().vec();
    ours[own] = tensors.at(name);
  }
  out.source.read = [ours = std::move(ours)](const std::string& name, int64_t begin,
                                             int64_t count) {
    return ours.at(name).contiguous().view(-1).narrow(0, begin, count);
  };
  return out;
}

}  // namespace

WeightsFile open_weights(const fs::path& path, const std::string& state, bool unwrap) {
  const fs::path file = find_file(path);
  const bool pt = file.extension() == ".pt" || file.extension() == ".pth";
  require(pt || state.empty(), "{}: a safetensors file has no states, '{}' was asked for",
          file.string(), state);
  WeightsFile out = pt ? open_pt(file, state, unwrap) : open_safetensors(file, unwrap);
  out.file = file;
  out.source.where = file.string();
  return out;
}

at::ScalarType type_of(const ParameterSource& source, const std::string& name) {
  const int64_t numel = c10::multiply_integers(source.shapes.at(name));
  return source.read(name, 0, std::min<int64_t>(numel, 1)).scalar_type();
}

at::Tensor read_whole(const ParameterSource& source, const std::string& name) {
  const auto& shape = source.shapes.at(name);
  return source.read(name, 0, c10::multiply_integers(shape)).view(shape);
}

std::map<std::string, at::Tensor> read_all(const ParameterSource& source) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : source.shapes) {
    tensors[item.first] = read_whole(source, item.first);
  }
  return tensors;
}

}  // namespace minwm::models
