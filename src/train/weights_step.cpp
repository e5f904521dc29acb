#include "minwm/train/weights_step.h"

#include <ATen/ATen.h>

#include "checkpoint_files.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;

void write_state(const fs::path& path, const CheckpointInfo& info,
                 const std::vector<TensorEntry>& entries,
                 const std::function<at::Tensor(size_t)>& read) {
  hdf5::File file(path, hdf5::File::Mode::kCreate);
  file.write_attribute("/", "format", kFormat);
  file.write_attribute("/", "version", kFormatVersion);
  file.write_attribute("/", "info", info_to_json(info));
  file.write_attribute("/", "step", info.step);
  file.write_attribute("/", "mesh", info.mesh);
  file.write_attribute("/", "data_position", info.data_position);
  file.write_attribute("/", "datasets", kUnfinished);
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& [name, type, shape] = entries[i];
    const at::Tensor values = read(i).contiguous();
    require(values.scalar_type() == type && values.sizes() == at::IntArrayRef(shape),
            "{}: parameter '{}' turned out {} {}, expected {} {}", path.string(), name,
            c10::toString(values.scalar_type()), c10::str(values.sizes()), c10::toString(type),
            c10::str(at::IntArrayRef(shape)));
    const std::string dataset = "model/param/" + name;
    file.create_dataset(dataset, type, shape);
    file.write_range(dataset, 0, values);
    file.write_attribute(dataset, "sum64", static_cast<int64_t>(checksum(values)));
  }
  file.write_attribute("/", "datasets", static_cast<int64_t>(entries.size()));
  file.flush();
  file.close();
}

}  // namespace

fs::path write_weights_step(const fs::path& directory, const CheckpointInfo& info,
                            const std::vector<TensorEntry>& entries,
                            const std::function<at::Tensor(size_t)>& read,
                            const std::vector<fs::path>& extra_files) {
  const fs::path folder = directory / step_name(info.step);
  std::error_code error;
  fs::create_directories(folder, error);
  require(!error, "{}: cannot be made: {}", folder.string(), error.message());
  atomic_write(folder / kConfigFile, info.config);
  for (const auto& extra : extra_files) {
    atomic_write(folder / extra.filename(), read_file(extra));
  }
  write_state(folder / kStateFile, info, entries, read);
  return folder;
}

std::string checkpoint_note(const CheckpointInfo& info) {
  return info_to_json(info);
}

CheckpointInfo checkpoint_of_note(const std::string& note, const std::string& where) {
  return info_from_json(note, where);
}

}  // namespace minwm::train
