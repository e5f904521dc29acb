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

/// "step-000123".
std::string step_name(int64_t step);
/// 123 of "step-000123"; -1 for any other name.
int64_t step_of(const std::string& name);
/// Complete-looking step folders below `directory`, oldest first. Empty if it does not exist.
std::vector<std::filesystem::path> step_folders(const std::filesystem::path& directory);

/// sum over i of mix64((i << 32) | word_i) mod 2^64 over the tensor's 32-bit words in row-major
/// order: slices of a tensor can be summed by different ranks (spec parallel 5).
uint64_t checksum(const at::Tensor& tensor);

std::string info_to_json(const CheckpointInfo& info);
/// @throws Error naming `where`.
CheckpointInfo info_from_json(const std::string& text, const std::string& where);

}  // namespace minwm::train
