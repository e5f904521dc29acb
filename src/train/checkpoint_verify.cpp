// Finding the newest checkpoint that is wholly as it was written.

#include <sstream>

#include <spdlog/spdlog.h>

#include "checkpoint_agreement.h"
#include "checkpoint_files.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/core/hdf5.h"
#include "minwm/train/checkpoint.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;

/// Rank 0's list, so that all ranks try the same ones.
std::vector<fs::path> candidates_of_all(const fs::path& run, comm::Communicator& world) {
  std::string lines;
  if (world.rank() == 0) {
    for (const auto& folder : candidates(run)) {
      lines += folder.string() + '\n';
    }
  }
  std::istringstream all(world.broadcast_string(lines, 0, "checkpoints to try"));
  std::vector<fs::path> folders;
  for (std::string line; std::getline(all, line);) {
    folders.emplace_back(line);
  }
  return folders;
}

/// This rank's share of the sum of one dataset, read in moderate pieces.
uint64_t partial_sum(const Checkpoint& checkpoint, const std::string& name, int64_t index,
                     const comm::Communicator& world) {
  constexpr int64_t kPiece = int64_t{4} << 20;  // elements
  const int64_t numel = c10::multiply_integers(checkpoint.shape(name));
  const Share share = share_of(index, numel, world.rank(), world.size());
  uint64_t sum = 0;
  for (int64_t begin = share.begin; begin < share.end; begin += kPiece) {
    const at::Tensor values =
        checkpoint.read_range(name, begin, std::min(kPiece, share.end - begin));
    const auto bytes = static_cast<uint64_t>(begin) * values.element_size();
    sum += checksum(values, bytes / sizeof(uint32_t));
  }
  return sum;
}

/// What is wrong with a step folder, on every rank; empty if nothing is.
std::string damage_of(const fs::path& folder, comm::Communicator& world) {
  std::optional<Checkpoint> checkpoint;
  std::vector<int64_t> stored;
  Failure failure = agree(failure_of([&] {
                            checkpoint.emplace(folder);
                            stored = checkpoint->checksums();
                            if (world.rank() == 0) {
                              require(read_file(folder / kConfigFile) == checkpoint->info().config,
                                      "{}: is not the configuration that {} was saved with",
                                      (folder / kConfigFile).string(), kStateFile);
                            }
                          }),
                          world);
  if (!failure.message.empty()) {
    return failure.message;
  }
  const auto names = checkpoint->names();
  at::Tensor sums = at::zeros({static_cast<int64_t>(names.size())}, at::kLong);
  int64_t* const sum = sums.mutable_data_ptr<int64_t>();
  failure = agree(failure_of([&] {
                    for (size_t i = 0; i < names.size(); ++i) {
                      sum[i] = static_cast<int64_t>(
                          partial_sum(*checkpoint, names[i], static_cast<int64_t>(i), world));
                    }
                  }),
                  world);
  if (!failure.message.empty()) {
    return failure.message;
  }
  all_reduce_patiently(sums, world, "checkpoint checksums");
  std::vector<std::string> damaged;
  for (size_t i = 0; i < names.size(); ++i) {
    if (sum[i] != stored[i]) {
      damaged.push_back(names[i]);
    }
  }
  if (damaged.empty()) {
    return "";
  }
  const std::string more =
      damaged.size() > 1 ? fmt::format(", and so are {} more", damaged.size() - 1) : "";
  return fmt::format("{}: dataset '{}' is damaged (its checksum is wrong){}",
                     (folder / kStateFile).string(), damaged.front(), more);
}

}  // namespace

void require_undamaged(const fs::path& step_folder, comm::Communicator& world) {
  const std::string damage = damage_of(step_folder, world);
  require(damage.empty(), "{}", damage);
}

std::optional<fs::path> latest_valid_checkpoint(const fs::path& run, comm::Communicator& world) {
  for (const auto& folder : candidates_of_all(run, world)) {
    const std::string damage = damage_of(folder, world);
    if (damage.empty()) {
      return folder;
    }
    if (world.rank() == 0) {
      spdlog::warn("skipping a damaged checkpoint: {}", damage);
    }
  }
  return std::nullopt;
}

}  // namespace minwm::train
