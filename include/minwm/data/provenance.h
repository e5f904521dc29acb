#pragma once
// What made a store or a clip folder: {"program": "minwm 0.1.0", "command": "data synth",
// "options": {...}}.

#include <filesystem>
#include <string>

namespace minwm::data {

/// @throws Error if FILE (or FILE.partial, which a killed writer left) was made by another command
/// or with other options: continuing it would mix two data sets. Another program version may
/// continue. Nothing if neither file exists.
void require_same_provenance(const std::filesystem::path& store, const std::string& provenance);

/// The same for a folder of files: FOLDER/provenance.json, written if it is not there.
void claim_folder(const std::filesystem::path& folder, const std::string& provenance);

}  // namespace minwm::data
