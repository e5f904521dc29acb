#include "checkpoint_step.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include "checkpoint_agreement.h"
#include "checkpoint_files.h"
#include "minwm/comm/mpi.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::train {
namespace {

namespace fs = std::filesystem;

hdf5::File create_file(const fs::path& path, const comm::Communicator& ranks) {
  if (ranks.size() == 1) {
    return {path, hdf5::File::Mode::kCreate};
  }
  const MPI_Comm handle = comm::mpi_handle(ranks);
  return {path, hdf5::File::Mode::kCreate, &handle};
}

/// Removes what killed saves left behind: there is one writer at a time.
void remove_leftovers(const fs::path& directory) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".tmp") && step_of(name.substr(0, name.size() - 4)) >= 0) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

/// Removes what is newer than the step just written, left by a run that was resumed from before it
/// (or damaged), and all but the `keep` newest of the others. The one just written stays.
void prune(const fs::path& directory, int64_t keep, int64_t written) {
  std::error_code ignored;
  auto folders = step_folders(directory);
  std::reverse(folders.begin(), folders.end());
  int64_t kept = 0;
  for (const auto& folder : folders) {
    const bool newer = step_of(folder.filename().string()) > written;
    if (newer) {
      spdlog::warn("{}: removed: the run has gone on from before it, to step {}", folder.string(),
                   written);
    }
    if (newer || ++kept > std::max<int64_t>(keep, 1)) {
      fs::remove_all(folder, ignored);
    }
  }
}

void remove_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  require(!error, "{}: cannot be removed: {}", folder.string(), error.message());
}

}  // namespace

StepWriter::StepWriter(fs::path directory, int64_t keep, CheckpointInfo info,
                       std::vector<Piece> pieces, std::vector<fs::path> extra_files,
                       std::shared_ptr<comm::Communicator> ranks)
    : directory_(std::move(directory)),
      final_(directory_ / step_name(info.step)),
      pending_(final_.string() + ".tmp"),
      keep_(keep),
      info_(std::move(info)),
      pieces_(std::move(pieces)),
      extra_files_(std::move(extra_files)),
      ranks_(std::move(ranks)),
      sums_(at::zeros({static_cast<int64_t>(pieces_.size())}, at::kLong)) {}

int64_t StepWriter::bytes() const {
  int64_t total = 0;
  for (const auto& piece : pieces_) {
    total += piece.numel() * static_cast<int64_t>(c10::elementSize(piece.type));
  }
  return total;
}

fs::path StepWriter::run() {
  // Inside `together` a failure of one rank may leave the others blocked.
  const auto together = [this](void (StepWriter::*stage)()) {
    alone_ = ranks_->size() > 1;
    (this->*stage)();
    alone_ = false;
  };
  try {
    require_complete(pieces_, info_to_json(info_) + info_.mesh, *ranks_);
    run_agreed(*ranks_, [this] { prepare_folder(); });
    together(&StepWriter::create);
    run_agreed(*ranks_, [this] { write_pieces(); });
    all_reduce_patiently(sums_, *ranks_, "checkpoint checksums");
    together(&StepWriter::finish);
    run_agreed(*ranks_, [this] { publish(); });
  } catch (...) {
    const Failure failure = current_failure();
    abandon();
    // Whatever it is, no option was wrong: the run has come this far.
    throw Error(fmt::format("checkpoint of step {} was not saved; older ones are untouched: {}",
                            info_.step, failure.message),
                kExitFailure);
  }
  return final_;
}

void StepWriter::prepare_folder() const {
  if (!is_first()) {
    return;
  }
  remove_leftovers(directory_);
  remove_folder(pending_);
  std::error_code error;
  fs::create_directories(pending_, error);
  require(!error, "{}: cannot be made: {}", pending_.string(), error.message());
  require_space();
  atomic_write(pending_ / kConfigFile, info_.config);
  for (const auto& extra : extra_files_) {
    atomic_write(pending_ / extra.filename(), read_file(extra));
  }
}

/// Said before the first byte rather than in the midst of collective calls.
void StepWriter::require_space() const {
  constexpr int64_t kPerDataset = 1024;  // names, shapes, checksums
  const int64_t needed = bytes() + kPerDataset * static_cast<int64_t>(pieces_.size());
  std::error_code unknown;
  const auto space = fs::space(pending_, unknown);
  require(unknown || space.available >= static_cast<uint64_t>(needed),
          "{}: No space left on device ({} bytes are needed, {} are free)", pending_.string(),
          needed, space.available);
}

/// The file's structure, all of it: what follows changes bytes in place.
void StepWriter::create() {
  file_.emplace(create_file(pending_ / kStateFile, *ranks_));
  hdf5::File& file = *file_;
  file.write_attribute("/", "format", kFormat);
  file.write_attribute("/", "version", kFormatVersion);
  file.write_attribute("/", "info", info_to_json(info_));
  file.write_attribute("/", "step", info_.step);
  file.write_attribute("/", "mesh", info_.mesh);
  file.write_attribute("/", "data_position", info_.data_position);
  file.write_attribute("/", "datasets", kUnfinished);
  for (const auto& piece : pieces_) {
    file.create_dataset(piece.name, piece.type, piece.shape);
    file.write_attribute(piece.name, "sum64", int64_t{0});
  }
  file.flush();
}

void StepWriter::write_pieces() {
  int64_t* const sum = sums_.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    if (piece.values.numel() == 0) {
      continue;
    }
    file_->write_range(piece.name, piece.begin, piece.values);
    const auto width = static_cast<int64_t>(piece.values.element_size());
    const auto first_word =
        static_cast<uint64_t>(piece.begin * width) / static_cast<uint64_t>(sizeof(uint32_t));
    sum[i] = static_cast<int64_t>(checksum(piece.values, first_word));
  }
  // Every rank for the node it writes from, and without HDF5's lock: this is most of the time.
  file_->sync_data();
}

void StepWriter::finish() {
  const int64_t* const sum = sums_.const_data_ptr<int64_t>();
  for (size_t i = 0; i < pieces_.size(); ++i) {
    file_->write_attribute(pieces_[i].name, "sum64", sum[i]);
  }
  file_->write_attribute("/", "datasets", static_cast<int64_t>(pieces_.size()));
  file_->flush();
  file_->close();
  file_.reset();
}

void StepWriter::publish() const {
  if (is_first()) {
    remove_folder(final_);  // a torn one of the same step
    publish_directory(pending_, final_);
    prune(directory_, keep_, info_.step);
  }
}

/// After a failure that all ranks know of, rank 0 gives the disk's space back. The file itself is
/// closed by a rank that is alone only: for several, closing is collective, and writes what just
/// could not be written. They keep the handle of the removed, empty file to their end.
void StepWriter::abandon() {
  std::error_code ignored;
  if (is_first() && !alone_) {
    fs::resize_file(pending_ / kStateFile, 0, ignored);
  }
  if (file_.has_value() && ranks_->size() > 1) {
    file_->leave_open();
  }
  file_.reset();
  if (is_first() && !alone_) {
    fs::remove_all(pending_, ignored);
  }
}

}  // namespace minwm::train
