#include <optional>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <ATen/ATen.h>

#include "minwm/comm/mpi.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"
#include "minwm/data/latent_store.h"
#include "store_file.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using Mode = hdf5::File::Mode;

/// Keeps a second job out of a file for as long as it lives; the system drops it when a process
/// dies.
class FileLock {
 public:
  explicit FileLock(const fs::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    // Other reasons to fail than a holder (a file system without locks) do not matter.
    const bool taken = fd_ >= 0 && ::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (taken) {
      ::close(fd_);
      fail("{}: another job is writing it", path.string());
    }
  }
  ~FileLock() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_;
};

/// Runs `body` on rank 0; its error becomes everybody's.
template <class Body>
void on_first_rank(comm::Communicator& communicator, const char* what, const Body& body) {
  std::string message;
  if (communicator.rank() == 0) {
    try {
      body();
    } catch (...) {
      message = current_failure().message;
    }
  }
  message = communicator.broadcast_string(message, 0, what);
  require(message.empty(), "{}", message);
}

/// Waits until a file or folder is on the disk.
void sync(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const int code = fd < 0 || ::fsync(fd) != 0 ? errno : 0;
  if (fd >= 0) {
    ::close(fd);
  }
  // EINVAL: a file system that cannot sync this kind of file has nothing to lose either.
  require(code == 0 || code == EINVAL, "cannot write {}: {}", path.string(),
          std::generic_category().message(code));
}

/// @throws Error unless the file at `path` is what this run would have made.
void require_same_layout(const fs::path& path, const StoreLayout& layout, int64_t capacity) {
  const hdf5::File file(path, Mode::kReadOnly);
  const StoreLayout found = store::read_layout(file);
  const int64_t slots = file.shape("state")[0];
  require(describe(found) == describe(layout) && slots == capacity &&
              (layout.text_tokens == 0 || found.text_type == layout.text_type),
          "{}: holds {} slots of {}; this run makes {} of {}: remove it or choose another name",
          path.string(), slots, describe(found), capacity, describe(layout));
}

}  // namespace

struct LatentStoreWriter::Impl {
  fs::path path, partial;
  StoreLayout layout;
  int64_t capacity;
  std::shared_ptr<comm::Communicator> communicator;
  std::optional<FileLock> job_lock;
  std::optional<hdf5::File> file;  ///< nothing if the store was finished already, or after close()
  at::Tensor states;               ///< [N] uint8
  at::Tensor ids;                  ///< [N, 128] uint8
  bool published = false;

  Impl(const fs::path& path_, const StoreLayout& layout_, int64_t capacity_,
       std::shared_ptr<comm::Communicator> communicator_)
      : path(path_),
        partial(path_.string() + ".partial"),
        layout(layout_),
        capacity(capacity_),
        communicator(std::move(communicator_)) {
    on_first_rank(*communicator, "open latent store", [&] {
      prepare();
      published = fs::exists(path);
    });
    // Asked once: file systems may show the ranks different moments.
    published = communicator->all_reduce_max(published ? 1 : 0, "is latent store finished") > 0;
    if (published) {
      const hdf5::File finished(path, Mode::kReadOnly);
      states = finished.read("state");
      ids = finished.read("sample_id");
      return;
    }
    open();
    states = file->read("state");
    ids = file->read("sample_id");
    keep_what_is_right();
  }

  /// Rank 0 alone: an existing file fits, or a new one is there, with all its space and no data.
  void prepare() {
    if (fs::exists(path)) {
      require_same_layout(path, layout, capacity);
      return;
    }
    if (!fs::exists(partial)) {
      // Its structure is written and closed before any data, so that a kill cannot tear it.
      PendingFile pending(partial);
      hdf5::File created(pending.path(), Mode::kCreate);
      store::create(created, layout, capacity);
      created.close();
      pending.publish();
    }
    job_lock.emplace(partial);
    require_same_layout(partial, layout, capacity);
  }

  void open() {
    if (communicator->size() == 1) {
      file.emplace(partial, Mode::kReadWrite);
      return;
    }
    const MPI_Comm handle = comm::mpi_handle(*communicator);
    file.emplace(partial, Mode::kReadWrite, &handle);
  }

  /// Forgets failed slots and, after a lost node, those whose data did not reach the disk.
  void keep_what_is_right() {
    const at::Tensor sums = file->read("checksum");
    at::Tensor right = at::zeros({capacity}, at::kInt);
    for (int64_t slot = communicator->rank(); slot < capacity; slot += communicator->size()) {
      if (states[slot].item<uint8_t>() != store::kDone) {
        continue;
      }
      const bool same =
          store::checksum(store::read_row(*file, layout, slot)) == sums[slot].item<int64_t>();
      right[slot] = same ? 1 : 0;
      if (!same) {
        set_state(slot, store::kEmpty);
      }
    }
    communicator->all_reduce(right, "check latent store");
    states = right.to(at::kByte) * static_cast<int64_t>(store::kDone);
  }

  void set_state(int64_t slot, store::State state) {
    states[slot].fill_(static_cast<int64_t>(state));
    file->write_rows("state", slot, states.slice(0, slot, slot + 1));
  }

  void put(int64_t slot, const store::Row& row, store::State state) {
    require(file.has_value(), "{}: is finished and takes no more samples", path.string());
    TORCH_CHECK_INDEX(slot >= 0 && slot < capacity, path.string(), ": slot ", slot, " of ",
                      capacity);
    // In this order: wherever a kill falls, a slot that says done is done.
    set_state(slot, store::kEmpty);
    store::write_row(*file, slot, row);
    set_state(slot, state);
    ids[slot].copy_(row.sample_id[0]);
  }

  bool close() {
    if (!file) {
      return published;
    }
    at::Tensor settled = states.ne(static_cast<int64_t>(store::kEmpty)).to(at::kInt);
    communicator->all_reduce(settled, "close latent store");
    file->flush();
    file->close();
    file.reset();
    communicator->barrier("latent store is written");
    published = settled.ne(0).all().item<bool>();
    on_first_rank(*communicator, "publish latent store", [&] {
      if (published) {
        sync(partial);
        fs::rename(partial, path);
        sync(path.has_parent_path() ? path.parent_path() : ".");
      }
      job_lock.reset();
    });
    return published;
  }
};

LatentStoreWriter::LatentStoreWriter(const fs::path& path, const StoreLayout& layout,
                                     int64_t capacity,
                                     std::shared_ptr<comm::Communicator> communicator)
    : impl_(std::make_unique<Impl>(path, layout, capacity, std::move(communicator))) {}
LatentStoreWriter::~LatentStoreWriter() = default;

bool LatentStoreWriter::complete(int64_t slot, const std::string& expected_id) const {
  TORCH_CHECK_INDEX(slot >= 0 && slot < impl_->capacity, impl_->path.string(), ": slot ", slot,
                    " of ", impl_->capacity);
  if (impl_->states[slot].item<uint8_t>() == store::kEmpty) {
    return false;
  }
  const std::string found = store::to_text(impl_->ids[slot]);
  require(expected_id.empty() || expected_id == found,
          "{}: slot {} holds sample '{}', this run has '{}' there: remove the file or choose "
          "another name",
          (impl_->file ? impl_->partial : impl_->path).string(), slot, found, expected_id);
  return true;
}

void LatentStoreWriter::write(int64_t slot, const Clip& clip) {
  const StoreLayout& layout = impl_->layout;
  const std::string where = fmt::format("{}: sample '{}'", impl_->path.string(), clip.sample_id);
  require(!clip.sample_id.empty(), "{}: the sample for slot {} has no id", impl_->path.string(),
          slot);
  store::require_valid(clip, layout, where);
  store::Row row;
  row.latents = clip.latents.unsqueeze(0).to(at::kHalf).contiguous();
  row.world_to_camera = clip.world_to_camera.unsqueeze(0).to(at::kFloat).contiguous();
  row.intrinsics = clip.intrinsics.unsqueeze(0).to(at::kFloat).contiguous();
  if (layout.text_tokens > 0) {
    row.text = clip.text.unsqueeze(0).to(layout.text_type).contiguous();
  }
  if (!layout.ode_sigmas.empty()) {
    row.ode_states = clip.ode_states.unsqueeze(0).to(at::kHalf).contiguous();
  }
  for (const at::Tensor& rounded : {row.latents, row.text, row.ode_states}) {
    require(!rounded.defined() || store::all_finite(rounded),
            "{}: a value is too large for float16", where);
  }
  row.sample_id = store::to_bytes(clip.sample_id, store::kIdBytes, where + ": its id");
  row.about = store::about_to_bytes(clip, where);
  impl_->put(slot, row, store::kDone);
}

void LatentStoreWriter::mark_failed(int64_t slot, const std::string& sample_id,
                                    const std::string& reason) {
  store::Row row;
  row.sample_id = store::to_bytes(sample_id, store::kIdBytes, impl_->path.string() + ": an id");
  row.about = store::reason_to_bytes(reason);
  impl_->put(slot, row, store::kFailed);
}

bool LatentStoreWriter::close() {
  return impl_->close();
}

}  // namespace minwm::data
