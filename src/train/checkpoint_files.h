#pragma once
// What writing and reading checkpoints share: names, the format's version, checksums.

#include <cstdint>
#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

#include "minwm/train/checkpoint.h"

namespace minwm::train {

constexpr const char* kFormat = "minwm checkpoint";
constexpr int64_t kFormatVersion = 1;
constexpr const char* kStateFile = "state.h5";
constexpr const char* kConfigFile = "config.ini";
/// Root attribute "datasets" of a file that is still being written.
constexpr int64_t kUnfinished = -1;

/// "step-000123".
std::string step_name(int64_t step);
/// 123 of "step-000123"; -1 for any other name.
int64_t step_of(const std::string& name);
/// Complete-looking step folders below `directory`, oldest first. Empty if it does not exist.
std::vector<std::filesystem::path> step_folders(const std::filesystem::path& directory);

/// By its name, or because it holds a state file.
bool is_step_folder(const std::filesystem::path& path);

/// The step folders of a run folder or checkpoints folder, newest first; a step folder itself.
std::vector<std::filesystem::path> candidates(const std::filesystem::path& run);

/// sum over i of mix64((i << 32) | word_i) mod 2^64 over the tensor's 32-bit words in row-major
/// order, numbered from `first_word` on: the sums of a tensor's parts add up to its own (spec
/// parallel 5). Bytes missing to the last word count as zero.
uint64_t checksum(const at::Tensor& tensor, uint64_t first_word = 0);

/// Elements [begin, end) of the tensor number `index`, of `numel` elements, that `rank` of `size`
/// handles where every rank could: large tensors are cut at multiples of 1024, small ones go whole
/// to one rank after the other.
struct Share {
  int64_t begin, end;
};
Share share_of(int64_t index, int64_t numel, int rank, int size);

std::string info_to_json(const CheckpointInfo& info);
/// @throws Error naming `where`.
CheckpointInfo info_from_json(const std::string& text, const std::string& where);

}  // namespace minwm::train
