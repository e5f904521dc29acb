#include "minwm/data/provenance.h"

#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/data/latent_store.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// The first option that differs, as `style = "detail", now "standard"`.
std::string difference(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    const Json old = before.contains(key) ? before[key] : Json();
    if (old != value) {
      return fmt::format("{} = {}, now {}", key, old.dump(), value.dump());
    }
  }
  return "other options";
}

void require_same(const std::string& path, const std::string& found, const std::string& wanted) {
  const Json now = Json::parse(wanted);
  const Json before = Json::parse(found, nullptr, false);
  const std::string command = before.is_object() ? before.value("command", "") : "";
  require(command == now.at("command"),
          "{}: was made by {}, not by minwm {}: remove it or choose another name", path,
          command.empty() ? "another program" : "minwm " + command,
          now.at("command").get<std::string>());
  const Json options = before.value("options", Json::object());
  require(options == now.at("options"), "{}: was made with {}: remove it or choose another name",
          path, difference(options, now.at("options")));
}

}  // namespace

void require_same_provenance(const fs::path& store, const std::string& provenance) {
  for (const std::string& path : {store.string(), store.string() + ".partial"}) {
    if (fs::exists(path)) {
      require_same(path, LatentStore(path).layout().provenance, provenance);
    }
  }
}

void claim_folder(const fs::path& folder, const std::string& provenance) {
  const fs::path path = folder / "provenance.json";
  if (fs::exists(path)) {
    require_same(folder.string(), read_file(path), provenance);
  } else {
    atomic_write(path, provenance + "\n");
  }
}

}  // namespace minwm::data
