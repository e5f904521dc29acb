#pragma once
// A checkpoint made of somebody else's weights, written one parameter at a time.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "minwm/core/sharded_safetensors.h"
#include "minwm/train/checkpoint.h"

namespace minwm::train {

/// Writes `directory`/step-NNNNNN with the parameters `entries` ("model/param/NAME"); `read(i)`
/// gives entry i, one at a time. For one process. Not atomic: `directory` is to be the caller's own
/// until publish_directory.
/// @return the step folder.
/// @throws Error naming file and reason; a tensor that is not as its entry says.
std::filesystem::path write_weights_step(const std::filesystem::path& directory,
                                         const CheckpointInfo& info,
                                         const std::vector<TensorEntry>& entries,
                                         const std::function<at::Tensor(size_t)>& read,
                                         const std::vector<std::filesystem::path>& extra_files);

/// What a checkpoint records, as one line for the metadata of another format; and back.
/// @throws Error naming `where` if the line is damaged.
std::string checkpoint_note(const CheckpointInfo& info);
CheckpointInfo checkpoint_of_note(const std::string& note, const std::string& where);

}  // namespace minwm::train
