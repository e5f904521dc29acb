#include "minwm/core/sharded_safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>

#include <fcntl.h>
#include <unistd.h>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "safetensors_header.h"

namespace minwm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Tensor → shard file of an index.
std::map<std::string, std::string> read_index(const fs::path& path) {
  Json json;
  try {
    json = Json::parse(read_file(path));
  } catch (const Json::exception& error) {
    fail("{}: is not valid JSON: {}", path.string(), error.what());
  }
  require(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(),
          "{}: expected an object with 'weight_map' (tensor: shard file)", path.string());
  std::map<std::string, std::string> map;
  for (const auto& item : json["weight_map"].items()) {
    const std::string shard =
        item.value().is_string() ? item.value().get<std::string>() : std::string();
    // A shard lies beside its index: anything else reaches out of the folder.
    require(!shard.empty() && shard == fs::path(shard).filename().string() && shard != ".." &&
                shard != ".",
            "{}: tensor '{}' is in '{}', expected the name of a file beside the index",
            path.string(), item.key(), shard);
    map[item.key()] = shard;
  }
  require(!map.empty(), "{}: weight_map is empty", path.string());
  return map;
}

/// A file that is written from front to back and appears when it is published.
class ShardFile {
 public:
  explicit ShardFile(const fs::path& path)
      : path_(path),
        pending_(path),
        file_(::open(pending_.path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
    require(file_ >= 0, "cannot write {}: {}", path.string(), std::strerror(errno));
  }
  ~ShardFile() {
    if (file_ >= 0) {
      ::close(file_);
    }
  }
  ShardFile(const ShardFile&) = delete;
  ShardFile& operator=(const ShardFile&) = delete;

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) {
        continue;
      }
      require(written >= 0, "cannot write {}: {}", path_.string(), std::strerror(errno));
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }
  /// Some file systems report a full disk only here.
  void close() {
    const int result = ::close(std::exchange(file_, -1));
    require(result == 0, "cannot write {}: {}", path_.string(), std::strerror(errno));
  }
  void publish() { pending_.publish(); }

 private:
  fs::path path_;
  PendingFile pending_;
  int file_;
};

int64_t bytes_of(const TensorEntry& entry) {
  return c10::multiply_integers(entry.shape) * static_cast<int64_t>(c10::elementSize(entry.dtype));
}

/// Where each shard begins in `entries`, and their end.
std::vector<size_t> cut(const std::vector<TensorEntry>& entries, int64_t max_shard_size) {
  std::vector<size_t> begins{0};
  int64_t filled = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    const int64_t bytes = bytes_of(entries[i]);
    if (max_shard_size > 0 && i > begins.back() && filled + bytes > max_shard_size) {
      begins.push_back(i);
      filled = 0;
    }
    filled += bytes;
  }
  begins.push_back(entries.size());
  return begins;
}

void write_tensors(ShardFile& file, const fs::path& path, const std::vector<TensorEntry>& entries,
                   size_t begin, size_t end, const std::function<at::Tensor(size_t)>& read,
                   const std::map<std::string, std::string>& metadata) {
  safetensors::Header header(path, metadata);
  for (size_t i = begin; i < end; ++i) {
    header.add(entries[i].name, entries[i].dtype, entries[i].shape,
               static_cast<uint64_t>(bytes_of(entries[i])));
  }
  file.append(header.bytes());
  for (size_t i = begin; i < end; ++i) {
    const at::Tensor tensor = read(i).detach().cpu().contiguous();
    require(tensor.scalar_type() == entries[i].dtype && tensor.sizes() == entries[i].shape,
            "{}: tensor '{}' turned out {} {}, expected {} {}", path.string(), entries[i].name,
            c10::toString(tensor.scalar_type()), c10::str(tensor.sizes()),
            c10::toString(entries[i].dtype), c10::str(at::IntArrayRef(entries[i].shape)));
    file.append({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  file.close();
}

}  // namespace

ShardedSafetensors::ShardedSafetensors(const fs::path& path) : file_(path.string()) {
  if (path.extension() != ".json") {
    shards_.emplace_back(path);
    names_ = shards_.front().names();
    for (const auto& name : names_) {
      place_[name] = 0;
    }
  } else {
    const auto index = read_index(path);
    std::map<std::string, size_t> opened;
    for (const auto& [name, shard] : index) {
      const fs::path file = path.parent_path() / shard;
      if (!opened.contains(shard)) {
        require(fs::exists(file), "{}: the shard {} is missing", file_, shard);
        opened[shard] = shards_.size();
        shards_.emplace_back(file);
      }
      place_[name] = opened.at(shard);
      require(shards_[place_[name]].contains(name),
              "{}: lists tensor '{}' in {}, which does not hold it", file_, name, shard);
      names_.push_back(name);
    }
    for (const auto& [shard, number] : opened) {
      for (const auto& name : shards_[number].names()) {
        const auto found = index.find(name);
        require(found != index.end() && found->second == shard,
                "{}: {} holds tensor '{}', which the index does not list there", file_, shard,
                name);
      }
    }
  }
  std::sort(names_.begin(), names_.end());
}

const Safetensors& ShardedSafetensors::shard_of(const std::string& name) const {
  const auto found = place_.find(name);
  require(found != place_.end(), "{}: no tensor '{}'", file_, name);
  return shards_[found->second];
}
std::vector<int64_t> ShardedSafetensors::shape(const std::string& name) const {
  return shard_of(name).shape(name);
}
at::ScalarType ShardedSafetensors::dtype(const std::string& name) const {
  return shard_of(name).dtype(name);
}
at::Tensor ShardedSafetensors::view(const std::string& name) const {
  return shard_of(name).view(name);
}

fs::path write_sharded_safetensors(const fs::path& folder, const std::vector<TensorEntry>& entries,
                                   const std::function<at::Tensor(size_t)>& read,
                                   const ShardOptions& options) {
  require(options.max_shard_size >= 0, "{}: max_shard_size {}: expected 0 or more", folder.string(),
          options.max_shard_size);
  std::set<std::string> names;
  int64_t total = 0;
  for (const auto& entry : entries) {
    require(names.insert(entry.name).second, "{}: tensor '{}' is given twice", folder.string(),
            entry.name);
    total += bytes_of(entry);
  }
  const auto begins = cut(entries, options.max_shard_size);
  const size_t count = begins.size() - 1;
  Json weight_map = Json::object();
  std::vector<std::unique_ptr<ShardFile>> files;
  for (size_t shard = 0; shard < count; ++shard) {
    const std::string name =
        count == 1 ? options.stem + ".safetensors"
                   : fmt::format("{}-{:05}-of-{:05}.safetensors", options.stem, shard + 1, count);
    files.push_back(std::make_unique<ShardFile>(folder / name));
    write_tensors(*files.back(), folder / name, entries, begins[shard], begins[shard + 1], read,
                  options.metadata);
    for (size_t i = begins[shard]; i < begins[shard + 1]; ++i) {
      weight_map[entries[i].name] = name;
    }
  }
  for (const auto& file : files) {
    file->publish();
  }
  if (count == 1) {
    return folder / (options.stem + ".safetensors");
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  const fs::path path = folder / (options.stem + ".safetensors.index.json");
  atomic_write(path, index.dump(2) + "\n");
  return path;
}

}  // namespace minwm
