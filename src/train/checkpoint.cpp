// Reading checkpoints. Needs no MPI: whoever serves or evaluates a model opens one alone.

#include "minwm/train/checkpoint.h"

#include <spdlog/spdlog.h>

#include "checkpoint_files.h"
#include "minwm/core/error.h"
#include "minwm/core/hdf5.h"
#include "minwm/models/state.h"

namespace minwm::train {
namespace {

/// `path` itself if it is a step folder, else the newest valid step below it.
std::filesystem::path find_step(const std::filesystem::path& path) {
  require(std::filesystem::exists(path), "checkpoint {}: does not exist", path.string());
  require(std::filesystem::is_directory(path),
          "checkpoint {}: expected a step folder or a run folder", path.string());
  if (is_step_folder(path)) {
    return path;
  }
  const auto latest = latest_checkpoint(path);
  require(latest.has_value(),
          "{}: holds no complete checkpoint (expected checkpoints/step-NNNNNN/{})", path.string(),
          kStateFile);
  return *latest;
}

}  // namespace

struct Checkpoint::Impl {
  Impl(const std::filesystem::path& step_folder, Verify verify_)
      : path(step_folder),
        verify(verify_),
        file(step_folder / kStateFile, hdf5::File::Mode::kReadOnly) {
    const std::string where = file.path().string();
    require(file.has_attribute("/", "format") && file.read_string("/", "format") == kFormat,
            "{}: is no checkpoint of minwm train", where);
    const int64_t version = file.read_integer("/", "version");
    require(version == kFormatVersion, "{}: checkpoint format {}, expected {}", where, version,
            kFormatVersion);
    // Set last: a file without it was not finished.
    const int64_t expected =
        file.has_attribute("/", "datasets") ? file.read_integer("/", "datasets") : kUnfinished;
    require(expected != kUnfinished, "{}: was not written to its end", where);
    names = file.datasets();
    require(static_cast<int64_t>(names.size()) == expected, "{}: holds {} datasets, expected {}",
            where, names.size(), expected);
    info = info_from_json(file.read_string("/", "info"), where);
    // Absent from checkpoints of before sharding.
    if (file.has_attribute("/", "mesh")) {
      info.mesh = file.read_string("/", "mesh");
      info.data_position = file.read_integer("/", "data_position");
    }
  }

  void require_name(const std::string& name) const {
    require(std::binary_search(names.begin(), names.end(), name), "{}: lacks the dataset '{}'",
            file.path().string(), name);
  }

  std::filesystem::path path;
  Verify verify;
  hdf5::File file;
  CheckpointInfo info;
  std::vector<std::string> names;
};

Checkpoint::Checkpoint(const std::filesystem::path& path, Verify verify)
    : impl_(std::make_unique<Impl>(find_step(path), verify)) {}
Checkpoint::~Checkpoint() = default;

const CheckpointInfo& Checkpoint::info() const {
  return impl_->info;
}
const std::filesystem::path& Checkpoint::path() const {
  return impl_->path;
}
bool Checkpoint::contains(const std::string& name) const {
  return std::binary_search(impl_->names.begin(), impl_->names.end(), name);
}
std::vector<std::string> Checkpoint::names() const {
  return impl_->names;
}

at::Tensor Checkpoint::read(const std::string& name) const {
  impl_->require_name(name);
  at::Tensor tensor = impl_->file.read(name);
  if (impl_->verify == Verify::kEachRead) {
    const auto stored = static_cast<uint64_t>(impl_->file.read_integer(name, "sum64"));
    require(checksum(tensor) == stored, "{}: dataset '{}' is damaged (its checksum is wrong)",
            impl_->file.path().string(), name);
  }
  return tensor;
}

std::vector<int64_t> Checkpoint::shape(const std::string& name) const {
  impl_->require_name(name);
  return impl_->file.shape(name);
}

at::Tensor Checkpoint::read_range(const std::string& name, int64_t begin, int64_t count) const {
  impl_->require_name(name);
  return impl_->file.read_range(name, begin, count);
}

std::vector<int64_t> Checkpoint::checksums() const {
  std::vector<int64_t> sums;
  for (const auto& name : impl_->names) {
    sums.push_back(impl_->file.read_integer(name, "sum64"));
  }
  return sums;
}

TensorMap Checkpoint::read_group(const std::string& prefix) const {
  TensorMap tensors;
  for (const auto& name : impl_->names) {
    if (name.starts_with(prefix)) {
      tensors[name.substr(prefix.size())] = read(name);
    }
  }
  return tensors;
}

std::string Checkpoint::weights_group(bool prefer_ema) const {
  const std::string averaged = "model/ema/";
  const bool there = std::any_of(impl_->names.begin(), impl_->names.end(),
                                 [&](const auto& name) { return name.starts_with(averaged); });
  return prefer_ema && there ? averaged : "model/param/";
}

void Checkpoint::load_model(torch::nn::Module& model, bool prefer_ema) const {
  models::load_state(model, read_group(weights_group(prefer_ema)), impl_->file.path().string());
}

std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& run) {
  for (const auto& folder : candidates(run)) {
    try {
      Checkpoint opened(folder);
      return folder;
    } catch (const Error& error) {
      spdlog::warn("skipping an incomplete checkpoint: {}", error.what());
    }
  }
  return std::nullopt;
}

}  // namespace minwm::train
