// minwm data inspect: what a latent store, a clip folder or a codec file holds.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "command.h"
#include "minwm/core/error.h"
#include "minwm/core/options.h"
#include "minwm/core/progress.h"
#include "minwm/data/latent_store.h"
#include "minwm/data/manifest.h"
#include "minwm/models/codec/codec.h"

namespace minwm::apps {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What was found, and the samples that --verify could not read.
struct Findings {
  Json about;
  std::vector<data::FailedSample> bad;
};

Json to_json(const std::vector<data::FailedSample>& failures) {
  Json out = Json::array();
  for (const data::FailedSample& failure : failures) {
    out.push_back({{"id", failure.sample_id}, {"reason", failure.reason}});
  }
  return out;
}

/// Calls `read(i)` for every sample; an Error is a bad sample.
template <class Id, class Read>
std::vector<data::FailedSample> verify(int64_t count, const Id& id, const Read& read) {
  std::vector<data::FailedSample> bad;
  Progress progress("verify", count, "clips");
  for (int64_t i = 0; i < count; ++i) {
    try {
      read(i);
    } catch (const Error& error) {
      bad.push_back({id(i), error.what()});
    }
    progress.update(i + 1);
  }
  return bad;
}

Findings inspect_store(const fs::path& path, bool all) {
  const data::LatentStore store(path);
  const data::StoreLayout& layout = store.layout();
  const std::vector<data::FailedSample> failures = store.failures();
  const auto failed = static_cast<int64_t>(failures.size());
  Json provenance = Json::parse(layout.provenance, nullptr, false);
  Findings found;
  found.about = {
      {"kind", "latent store"},
      {"path", path.string()},
      {"clips", store.size()},
      {"failed", failed},
      {"missing", store.capacity() - store.size() - failed},
      {"latents", {layout.frames, layout.channels, layout.height, layout.width}},
      {"pixels", {layout.pixel_height, layout.pixel_width}},
      {"text", {layout.text_tokens, layout.text_dim}},
      {"codec", layout.codec},
      {"provenance", provenance.is_discarded() ? Json(layout.provenance) : std::move(provenance)}};
  if (!layout.ode_sigmas.empty()) {
    found.about["ode_sigmas"] = layout.ode_sigmas;
  }
  if (store.size() > 0) {
    found.about["first"] = store.sample_id(0);
    found.about["last"] = store.sample_id(store.size() - 1);
  }
  found.about["failures"] = to_json(failures);
  if (all) {
    double square = 0;
    found.bad = verify(
        store.size(), [&](int64_t i) { return store.sample_id(i); },
        [&](int64_t i) { square += store.read(i).latents.square().mean().item<double>(); });
    const auto good = store.size() - static_cast<int64_t>(found.bad.size());
    if (good > 0) {
      found.about["latent_rms"] = std::sqrt(square / static_cast<double>(good));
    }
  }
  return found;
}

Findings inspect_folder(const fs::path& folder, bool all) {
  const std::vector<data::ManifestEntry> entries = data::read_manifest(folder);
  std::set<int64_t> latents;
  std::set<std::string> sizes, sources;
  int64_t frames = 0;
  for (const data::ManifestEntry& entry : entries) {
    latents.insert(entry.latent_frames());
    sizes.insert(fmt::format("{}x{}", entry.width, entry.height));
    sources.insert(entry.source.substr(0, entry.source.find(':')));
    frames += entry.frames;
  }
  Findings found;
  found.about = {{"kind", "clip folder"},  {"path", folder.string()},  {"clips", entries.size()},
                 {"video_frames", frames}, {"latent_frames", latents}, {"pixels", sizes},
                 {"sources", sources}};
  if (!entries.empty()) {
    const auto [low, high] =
        std::minmax_element(entries.begin(), entries.end(),
                            [](const auto& a, const auto& b) { return a.scale < b.scale; });
    found.about["scales"] = {low->scale, high->scale};
    found.about["first"] = entries.front().sample_id;
    found.about["last"] = entries.back().sample_id;
  }
  if (all) {
    found.bad = verify(
        static_cast<int64_t>(entries.size()),
        [&](int64_t i) { return entries[static_cast<size_t>(i)].sample_id; },
        [&](int64_t i) { data::read_clip_frames(folder, entries[static_cast<size_t>(i)]); });
  }
  return found;
}

/// Opening a codec checks all of it.
Findings inspect_codec(const fs::path& path) {
  const auto codec = models::open_codec(path);
  return {{{"kind", "codec"},
           {"path", path.string()},
           {"codec", codec->name()},
           {"channels", codec->latent_channels()},
           {"spatial_factor", codec->spatial_factor()},
           {"temporal_factor", codec->temporal_factor()}},
          {}};
}

bool is_hdf5(const fs::path& path) {
  std::string start(8, '\0');
  std::ifstream(path, std::ios::binary).read(start.data(), 8);
  return start == "\x89HDF\r\n\x1a\n";
}

Findings inspect_path(const fs::path& path, bool all) {
  if (fs::is_directory(path)) {
    return inspect_folder(path, all);
  }
  const std::string partial = path.string() + ".partial";
  if (!fs::exists(path) && fs::exists(partial)) {
    return inspect_store(partial, all);  // its writer is at work, or was killed
  }
  require(fs::exists(path), "{}: there is no such file or folder", path.string());
  return is_hdf5(path) ? inspect_store(path, all) : inspect_codec(path);
}

/// One line per entry; lists one line per element.
void print_text(const Json& about) {
  for (const auto& [key, value] : about.items()) {
    if (value.is_array() && !value.empty() && value[0].is_object()) {
      for (const Json& failure : value) {
        fmt::print("{:<16} {}: {}\n", key, failure["id"].get<std::string>(),
                   failure["reason"].get<std::string>());
      }
    } else if (!value.empty() || !value.is_array()) {
      fmt::print("{:<16} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

int inspect(comm::World& world, int argc, char** argv) {
  std::vector<std::string> paths;
  bool all = false, json = false;
  Options parser("minwm data inspect", "Shows a latent store, a clip folder or a codec file.");
  parser.positional("path", &paths, 1, "STORE.h5, FOLDER or CODEC.safetensors");
  parser.add("verify", &all, "read every clip and check its checksum; exit code 2 if one is bad");
  parser.add("json", &json, "print JSON");
  if (!parser.parse(argc, argv)) {
    return kExitDone;
  }
  require(paths.size() == 1, "name one latent store, clip folder or codec file");
  if (world.rank() > 0) {
    return kExitDone;
  }
  Findings found = inspect_path(paths[0], all);
  if (all) {
    found.about["bad"] = to_json(found.bad);
  }
  if (json) {
    fmt::print("{}\n", found.about.dump(2));
  } else {
    print_text(found.about);
  }
  std::fflush(stdout);
  if (!found.bad.empty()) {
    fail("{} of {} clips are bad; the first: {}", found.bad.size(),
         found.about["clips"].get<int64_t>(), found.bad[0].reason);
  }
  return kExitDone;
}

const bool registered =
    register_command("data inspect", "shows a latent store, a clip folder or a codec", inspect);

}  // namespace
}  // namespace minwm::apps
