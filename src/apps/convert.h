#pragma once
// What `minwm convert` does, without the program around it.

#include <cstdint>
#include <string>

namespace minwm {
class Options;
}

namespace minwm::apps {

struct ConvertOptions {
  std::string input, output, model, to, type = "keep", state, stage, codec, max_shard = "0";
  bool verify = false;
  void declare(Options& options);
};

/// What was done, in words.
struct Conversion {
  std::string found;       ///< what the input turned out to be
  int64_t parameters = 0;  ///< written
};

/// Makes the folder `output` out of `input`, one parameter at a time: nothing else is in memory,
/// but for a .pt file, which is one piece. The folder appears when it is complete (and read back,
/// with `verify`).
/// @throws Error with the reason; nothing is left behind then.
Conversion convert(const ConvertOptions& options);

}  // namespace minwm::apps
