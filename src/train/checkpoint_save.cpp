// Writing checkpoints: every rank its share of the tensors, under a temporary name until all of it
// is on the disk.

#include <algorithm>
#include <numeric>

#include <spdlog/spdlog.h>

#include "checkpoint_files.h"
#include "minwm/comm/mpi.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "minwm/train/checkpoint.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;

/// Which rank writes which tensor: the largest first, each to the rank with the least so far; the
/// same on every rank.
std::map<std::string, int> assign_writers(const TensorMap& tensors, int ranks) {
  std::vector<const TensorMap::value_type*> by_size;
  for (const auto& entry : tensors) {
    by_size.push_back(&entry);
  }
  std::stable_sort(by_size.begin(), by_size.end(), [](const auto* a, const auto* b) {
    return a->second.numel() > b->second.numel();
  });
  std::vector<int64_t> load(static_cast<size_t>(ranks), 0);
  std::map<std::string, int> writers;
  for (const auto* entry : by_size) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += entry->second.numel() + 1;
    writers[entry->first] = static_cast<int>(least - load.begin());
  }
  return writers;
}

hdf5::File create_file(const fs::path& path, const comm::Communicator& world) {
  if (world.size() == 1) {
    return {path, hdf5::File::Mode::kCreate};
  }
  const MPI_Comm handle = comm::mpi_handle(world);
  return {path, hdf5::File::Mode::kCreate, &handle};
}

void write_state(const fs::path& path, const CheckpointInfo& info, const TensorMap& tensors,
                 comm::Communicator& world) {
  hdf5::File file = create_file(path, world);
  file.write_attribute("/", "format", kFormat);
  file.write_attribute("/", "version", kFormatVersion);
  file.write_attribute("/", "info", info_to_json(info));
  for (const auto& [name, tensor] : tensors) {
    file.create_dataset(name, tensor.scalar_type(), tensor.sizes().vec());
  }
  const auto writers = assign_writers(tensors, world.size());
  at::Tensor sums = at::zeros({static_cast<int64_t>(tensors.size())}, at::kLong);
  int64_t index = 0;
  for (const auto& [name, tensor] : tensors) {
    if (writers.at(name) == world.rank()) {
      file.write(name, tensor);
      sums[index] = static_cast<int64_t>(checksum(tensor));
    }
    ++index;
  }
  world.all_reduce(sums, "checkpoint checksums");
  index = 0;
  for (const auto& [name, tensor] : tensors) {
    file.write_attribute(name, "sum64", sums[index++].item<int64_t>());
  }
  file.write_attribute("/", "datasets", static_cast<int64_t>(tensors.size()));
  file.close();
}

/// Removes what a killed save left behind, and all but the `keep` newest steps.
void prune(const fs::path& directory, int64_t keep) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".tmp") && step_of(name.substr(0, name.size() - 4)) >= 0) {
      fs::remove_all(entry.path(), ignored);
    }
  }
  auto folders = step_folders(directory);
  const auto surplus = static_cast<int64_t>(folders.size()) - std::max<int64_t>(keep, 1);
  for (int64_t i = 0; i < surplus; ++i) {
    fs::remove_all(folders[static_cast<size_t>(i)], ignored);
  }
}

void remove_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  require(!error, "{}: cannot be removed: {}", folder.string(), error.message());
}

void write_step(const fs::path& pending, const fs::path& final_path, const CheckpointInfo& info,
                const TensorMap& tensors, const std::vector<fs::path>& extra_files,
                comm::Communicator& world) {
  if (world.rank() == 0) {
    remove_folder(pending);
    std::error_code error;
    fs::create_directories(pending, error);
    require(!error, "{}: cannot be made: {}", pending.string(), error.message());
    atomic_write(pending / kConfigFile, info.config);
    for (const auto& extra : extra_files) {
      atomic_write(pending / extra.filename(), read_file(extra));
    }
  }
  world.barrier("checkpoint folder");
  write_state(pending / kStateFile, info, tensors, world);
  world.barrier("checkpoint written");
  if (world.rank() == 0) {
    remove_folder(final_path);  // a torn one of the same step
    publish_directory(pending, final_path);
  }
  world.barrier("checkpoint published");
}

}  // namespace

fs::path save_checkpoint(const fs::path& directory, const CheckpointInfo& info,
                         const TensorMap& tensors, const std::vector<fs::path>& extra_files,
                         int64_t keep, comm::Communicator& world) {
  const fs::path final_path = directory / step_name(info.step);
  const fs::path pending = final_path.string() + ".tmp";
  try {
    write_step(pending, final_path, info, tensors, extra_files, world);
  } catch (const Error& error) {
    // With several ranks the job is about to be aborted, and the others may still write.
    if (world.size() == 1) {
      std::error_code ignored;
      fs::remove_all(pending, ignored);
    }
    throw Error(fmt::format("checkpoint of step {} was not saved; older ones are untouched: {}",
                            info.step, error.what()),
                error.exit_code());
  }
  if (world.rank() == 0) {
    prune(directory, keep);
  }
  return final_path;
}

}  // namespace minwm::train
