#pragma once
// The files that published models consist of: names, sizes, hashes, and who publishes them.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace minwm::apps {

struct PublishedFile {
  /// Below the folder of all downloads, in the layout that minWM and its base models document.
  std::string_view path;
  /// A repository of the public model hub, "OWNER/NAME" (or where it says so, of another one).
  std::string_view repository;
  std::string_view lines;  ///< beginnings of the presets that it belongs to, comma separated
  /// Not needed to run the line's base model: weights of one stage, tiny decoders.
  bool optional = false;
  int64_t size = 0;   ///< bytes; 0 = not known
  int64_t least = 0;  ///< bytes that its tensors alone take; 0 = not known
  std::string_view sha256 = "";
};

/// All files known, in the order of their lines.
std::vector<PublishedFile> published_files();

struct FilesReport {
  std::string text;  ///< one line per file
  int64_t known = 0, missing = 0;
  int64_t bad = 0;  ///< truncated or damaged
};

/// Looks for the files of a preset ("wan-1.3b", "hy-8b", …) below `folder`. A line says: present,
/// missing, truncated or damaged, absent (optional), with the repository of what is not as
/// published. Files of a known size must have it; other weights must be as long as their headers
/// say. `hashes`: also compares the SHA-256 where it is known, which reads every byte.
/// @throws Error if there is no such folder, or nothing is published for the preset.
FilesReport check_published_files(const std::filesystem::path& folder, const std::string& preset,
                                  bool hashes);

}  // namespace minwm::apps
