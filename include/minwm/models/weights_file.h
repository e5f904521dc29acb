#pragma once
// A file of weights as published or as other trainers write it: named tensors, whatever they are
// for, with the wrappers' prefixes taken off their names.

#include <filesystem>
#include <map>
#include <string>

#include "minwm/models/state.h"

namespace minwm::models {

struct WeightsFile {
  ParameterSource source;  ///< names without wrappers' prefixes; keeps the file open
  std::filesystem::path file;
  std::string layout;                           ///< "safetensors", "sharded safetensors", "pt"
  std::string state;                            ///< the key of a .pt file, "" = the dict itself
  std::map<std::string, std::string> metadata;  ///< of a safetensors file
};

/// Opens weights at `path`: a .safetensors file, a .safetensors.index.json, a .pt or .pth file, or
/// a folder that holds one of them (diffusion_pytorch_model.* first, then model.*, its subfolder
/// transformer/, then the only such file).
///
/// A .pt file may hold the state itself or one or several under a key. `state` = "" takes the first
/// of generator_ema, generator, model, module, ema, state_dict that is there (what inference
/// prefers; spec wan-dit 10).
/// Names, unless `unwrap` is false: every `_fsdp_wrapped_module.`, `_checkpoint_wrapped_module.`
/// and `_orig_mod.` goes, then one leading `module.`, then one leading `model.diffusion_model.` or
/// `model.`.
/// @throws Error naming the file: nothing to open, several files to choose from, no such state, a
/// value that is no tensor, two names that are one without their prefixes, and what the readers
/// refuse.
WeightsFile open_weights(const std::filesystem::path& path, const std::string& state = "",
                         bool unwrap = true);

/// The type in which a source holds a parameter.
at::ScalarType type_of(const ParameterSource& source, const std::string& name);

/// A whole parameter at its shape.
at::Tensor read_whole(const ParameterSource& source, const std::string& name);
/// All of them, by name.
std::map<std::string, at::Tensor> read_all(const ParameterSource& source);

}  // namespace minwm::models
