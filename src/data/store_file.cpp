#include "store_file.h"

#include <charconv>
#include <cstring>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/ranges.h>

#include "camera_checks.h"
#include "minwm/core/error.h"

namespace minwm::data::store {
namespace {

using Json = nlohmann::ordered_json;

/// splitmix64's finaliser, as core/random's mix64, here where the compiler can inline it: a clip
/// has a million words.
inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

/// sum over 64-bit words i of mix(word_i xor i * odd), mod 2^64, over all parts of a row;
/// independent terms, so it runs at the speed of memory.
class Hash {
 public:
  void add(const at::Tensor& part) {
    if (!part.defined()) {
      return;
    }
    const auto* bytes = static_cast<const char*>(part.const_data_ptr());
    const size_t whole = part.nbytes() / 8;
    for (size_t i = 0; i < whole; ++i) {
      add_bytes(bytes + 8 * i, 8);
    }
    add_bytes(bytes + 8 * whole, part.nbytes() % 8);
  }
  uint64_t value() const { return sum_; }

 private:
  void add_bytes(const char* bytes, size_t count) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, count);
    sum_ += mix(word ^ (offset_ += 0x9E3779B97F4A7C15));
  }
  uint64_t sum_ = 0, offset_ = 0;
};

struct Dataset {
  const char* name;
  at::ScalarType type;
  std::vector<int64_t> row;  ///< shape without the leading axis
};

std::vector<Dataset> datasets_of(const StoreLayout& layout) {
  std::vector<Dataset> all = {
      {"latents", at::kHalf, {layout.frames, layout.channels, layout.height, layout.width}},
      {"world_to_camera", at::kFloat, {layout.frames, 4, 4}},
      {"intrinsics", at::kFloat, {3, 3}},
      {"sample_id", at::kByte, {kIdBytes}},
      {"about", at::kByte, {kAboutBytes}},
      {"checksum", at::kLong, {}},
      {"state", at::kByte, {}}};
  if (layout.text_tokens > 0) {
    all.push_back({"text", layout.text_type, {layout.text_tokens, layout.text_dim}});
  }
  if (!layout.ode_sigmas.empty()) {
    all.push_back(
        {"ode_states",
         at::kHalf,
         {ode_states(layout), layout.frames, layout.channels, layout.height, layout.width}});
  }
  return all;
}

/// Datasets whose rows are read one at a time and are large.
bool in_chunks(std::string_view name) {
  return name == "latents" || name == "ode_states";
}

/// "1,0.9375,…": the shortest digits that give the same doubles back.
std::string sigmas_to_text(const std::vector<double>& sigmas) {
  return fmt::format("{}", fmt::join(sigmas, ","));
}

std::vector<double> sigmas_from_text(const std::string& text, const std::string& path) {
  std::vector<double> sigmas;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    double value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    require(error == std::errc() && (next == end || *next == ','),
            "{}: ode_sigmas '{}' is not a list of numbers", path, text);
    sigmas.push_back(value);
    at = next + 1;
  }
  return sigmas;
}

bool descending_levels(const std::vector<double>& sigmas) {
  const auto rising = [](double above, double below) { return above <= below; };
  return std::all_of(sigmas.begin(), sigmas.end(), [](double s) { return s > 0 && s <= 1; }) &&
         std::adjacent_find(sigmas.begin(), sigmas.end(), rising) == sigmas.end();
}

void require_valid_layout(const StoreLayout& layout) {
  require(layout.frames > 0 && layout.channels > 0 && layout.height > 0 && layout.width > 0 &&
              (layout.text_tokens > 0) == (layout.text_dim > 0),
          "latent store: sizes must be positive: {}", describe(layout));
  require(layout.text_type == at::kFloat || layout.text_type == at::kHalf ||
              layout.text_type == at::kBFloat16,
          "latent store: text states are stored as float32, float16 or bfloat16, not {}",
          c10::toString(layout.text_type));
  require(descending_levels(layout.ode_sigmas),
          "latent store: noise levels of ODE states must descend from at most 1 to above 0: {}",
          describe(layout));
}

Json parse_about(const at::Tensor& bytes, const std::string& where) {
  const Json about = Json::parse(to_text(bytes), nullptr, false);
  require(about.is_object(), "{}: 'about' is not JSON", where);
  return about;
}

}  // namespace

int64_t ode_states(const StoreLayout& layout) {
  return static_cast<int64_t>(layout.ode_sigmas.size()) + 2;
}

int64_t checksum(const Row& row) {
  Hash hash;
  for (const at::Tensor* part : {&row.latents, &row.world_to_camera, &row.intrinsics, &row.text,
                                 &row.ode_states, &row.sample_id, &row.about}) {
    hash.add(*part);
  }
  return static_cast<int64_t>(hash.value());
}

StoreLayout read_layout(const hdf5::File& file) {
  const std::string path = file.path().string();
  require(file.has_attribute("/", "format") && file.read_string("/", "format") == kFormat,
          "{}: not a latent store", path);
  const int64_t version = file.read_integer("/", "version");
  require(version == kVersion, "{}: is a latent store of version {}, this program reads {}", path,
          version, kVersion);
  StoreLayout layout;
  for (const char* name : {"latents", "state"}) {
    require(file.contains(name), "{}: dataset '{}' is missing", path, name);
  }
  const auto latents = file.shape("latents");
  require(latents.size() == 5, "{}: latents have {} axes, expected 5", path, latents.size());
  layout.frames = latents[1];
  layout.channels = latents[2];
  layout.height = latents[3];
  layout.width = latents[4];
  if (file.contains("text")) {
    const auto text = file.shape("text");
    require(text.size() == 3, "{}: text has {} axes, expected 3", path, text.size());
    layout.text_tokens = text[1];
    layout.text_dim = text[2];
    layout.text_type = file.type("text");
  }
  const bool states = file.contains("ode_states");
  require(states == file.has_attribute("/", "ode_sigmas"),
          "{}: dataset 'ode_states' and attribute 'ode_sigmas' belong together, one is missing",
          path);
  if (states) {
    layout.ode_sigmas = sigmas_from_text(file.read_string("/", "ode_sigmas"), path);
    require(!layout.ode_sigmas.empty() && descending_levels(layout.ode_sigmas),
            "{}: ode_sigmas '{}' do not descend from at most 1 to above 0", path,
            sigmas_to_text(layout.ode_sigmas));
  }
  layout.pixel_height = file.read_integer("/", "pixel_height");
  layout.pixel_width = file.read_integer("/", "pixel_width");
  layout.codec = file.read_string("/", "codec");
  layout.provenance = file.read_string("/", "provenance");
  for (auto& [name, type, shape] : datasets_of(layout)) {
    shape.insert(shape.begin(), latents[0]);
    require(file.contains(name), "{}: dataset '{}' is missing", path, name);
    require(file.type(name) == type && file.shape(name) == shape,
            "{}: dataset '{}' is {} of {}, expected {} of {}", path, name,
            fmt::join(file.shape(name), " x "), c10::toString(file.type(name)),
            fmt::join(shape, " x "), c10::toString(type));
  }
  return layout;
}

void create(hdf5::File& file, const StoreLayout& layout, int64_t capacity) {
  require_valid_layout(layout);
  require(capacity > 0, "{}: a latent store of {} samples", file.path().string(), capacity);
  file.write_attribute("/", "format", std::string(kFormat));
  file.write_attribute("/", "version", kVersion);
  file.write_attribute("/", "codec", layout.codec);
  file.write_attribute("/", "provenance", layout.provenance);
  file.write_attribute("/", "pixel_height", layout.pixel_height);
  file.write_attribute("/", "pixel_width", layout.pixel_width);
  if (!layout.ode_sigmas.empty()) {
    file.write_attribute("/", "ode_sigmas", sigmas_to_text(layout.ode_sigmas));
  }
  for (auto& [name, type, shape] : datasets_of(layout)) {
    shape.insert(shape.begin(), capacity);
    file.create_dataset(name, type, shape, in_chunks(name) ? 1 : 0);
  }
  file.write("state", at::zeros({capacity}, at::kByte));
}

Row read_row(const hdf5::File& file, const StoreLayout& layout, int64_t slot) {
  Row row;
  row.latents = file.read_rows("latents", slot, 1);
  row.world_to_camera = file.read_rows("world_to_camera", slot, 1);
  row.intrinsics = file.read_rows("intrinsics", slot, 1);
  if (layout.text_tokens > 0) {
    row.text = file.read_rows("text", slot, 1);
  }
  if (!layout.ode_sigmas.empty()) {
    row.ode_states = file.read_rows("ode_states", slot, 1);
  }
  row.sample_id = file.read_rows("sample_id", slot, 1);
  row.about = file.read_rows("about", slot, 1);
  return row;
}

void write_row(hdf5::File& file, int64_t slot, const Row& row) {
  if (row.latents.defined()) {
    file.write_rows("latents", slot, row.latents);
    file.write_rows("world_to_camera", slot, row.world_to_camera);
    file.write_rows("intrinsics", slot, row.intrinsics);
  }
  if (row.text.defined()) {
    file.write_rows("text", slot, row.text);
  }
  if (row.ode_states.defined()) {
    file.write_rows("ode_states", slot, row.ode_states);
  }
  file.write_rows("sample_id", slot, row.sample_id);
  file.write_rows("about", slot, row.about);
  file.write_rows("checksum", slot, at::tensor({checksum(row)}, at::kLong));
}

at::Tensor to_bytes(const std::string& text, int64_t size, const std::string& what) {
  require(static_cast<int64_t>(text.size()) <= size, "{} has {} bytes, at most {} fit", what,
          text.size(), size);
  require(text.find('\0') == std::string::npos, "{} contains a zero byte", what);
  at::Tensor bytes = at::zeros({1, size}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

std::string to_text(const at::Tensor& bytes) {
  const auto* data = static_cast<const char*>(bytes.const_data_ptr());
  return {data, ::strnlen(data, bytes.nbytes())};
}

at::Tensor about_to_bytes(const Clip& clip, const std::string& where) {
  Json about = {
      {"caption", clip.caption}, {"trajectory", clip.trajectory}, {"source", clip.source}};
  if (clip.ode_states.defined()) {
    about["given"] = clip.given;
  }
  try {
    return to_bytes(about.dump(), kAboutBytes, where + ": caption, trajectory and source");
  } catch (const Json::exception&) {
    fail("{}: caption, trajectory or source is not UTF-8", where);
  }
}

void about_from_bytes(const at::Tensor& bytes, Clip& clip, const std::string& where) {
  const Json about = parse_about(bytes, where);
  try {
    clip.caption = about.at("caption").get<std::string>();
    clip.trajectory = about.at("trajectory").get<std::string>();
    clip.source = about.at("source").get<std::string>();
    clip.given = about.value("given", int64_t{0});
  } catch (const Json::exception& error) {
    fail("{}: 'about' is damaged: {}", where, error.what());
  }
}

at::Tensor reason_to_bytes(std::string reason) {
  constexpr size_t kLongest = 500;  // escaped, at most 6 bytes per byte: always fits
  reason.resize(std::min(reason.size(), kLongest));
  const Json about = {{"reason", reason}};
  return to_bytes(about.dump(-1, ' ', false, Json::error_handler_t::replace), kAboutBytes,
                  "reason");
}

std::string reason_from_bytes(const at::Tensor& bytes, const std::string& where) {
  return parse_about(bytes, where).value("reason", "");
}

bool all_finite(const at::Tensor& tensor) {
  // A NaN is passed on; forty times as fast as at::isfinite on a clip's text states.
  const auto [low, high] = at::aminmax(tensor);
  return std::isfinite(low.item<float>()) && std::isfinite(high.item<float>());
}

void require_valid(const Clip& clip, const StoreLayout& layout, const std::string& where) {
  const auto require_tensor = [&](const char* name, const at::Tensor& tensor,
                                  const std::vector<int64_t>& shape) {
    require(tensor.defined() && tensor.sizes() == shape, "{}: {} is [{}], the store holds [{}]",
            where, name, tensor.defined() ? fmt::format("{}", fmt::join(tensor.sizes(), ", ")) : "",
            fmt::join(shape, ", "));
    require(all_finite(tensor), "{}: {} is not finite", where, name);
  };
  require_tensor("latents", clip.latents,
                 {layout.frames, layout.channels, layout.height, layout.width});
  require_tensor("world_to_camera", clip.world_to_camera, {layout.frames, 4, 4});
  if (layout.text_tokens > 0) {
    require_tensor("text", clip.text, {layout.text_tokens, layout.text_dim});
  }
  if (!layout.ode_sigmas.empty()) {
    require_tensor(
        "ode_states", clip.ode_states,
        {ode_states(layout), layout.frames, layout.channels, layout.height, layout.width});
    require(clip.given >= 0 && clip.given < layout.frames,
            "{}: {} given latents of {}: at least one must be generated", where, clip.given,
            layout.frames);
  }
  require_valid_cameras(clip.world_to_camera, clip.intrinsics, where);
}

}  // namespace minwm::data::store

namespace minwm::data {

std::string describe(const StoreLayout& layout) {
  std::string text =
      fmt::format("latents {}x{}x{}x{}, text {}x{}, {}x{} pixels, codec {}", layout.frames,
                  layout.channels, layout.height, layout.width, layout.text_tokens, layout.text_dim,
                  layout.pixel_width, layout.pixel_height, layout.codec);
  if (!layout.ode_sigmas.empty()) {
    text += fmt::format(", ODE states at sigma {:g}", fmt::join(layout.ode_sigmas, ", "));
  }
  return text;
}

}  // namespace minwm::data
