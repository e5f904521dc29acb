#include "minwm/data/latent_store.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "store_file.h"

namespace minwm::data {

struct LatentStore::Impl {
  std::filesystem::path path;
  hdf5::File file;
  StoreLayout layout;
  int64_t capacity = 0;
  at::Tensor checksums;                 ///< [N]
  std::vector<int64_t> slots, failed;   ///< complete samples in sample-id order; failed ones
  std::vector<std::string> sample_ids;  ///< of `slots`

  explicit Impl(const std::filesystem::path& path_)
      : path(path_), file(path, hdf5::File::Mode::kReadOnly), layout(store::read_layout(file)) {
    const at::Tensor states = file.read("state");
    const at::Tensor ids = file.read("sample_id");
    checksums = file.read("checksum");
    capacity = states.size(0);
    std::vector<std::pair<std::string, int64_t>> done;
    const auto* state = states.const_data_ptr<uint8_t>();
    for (int64_t slot = 0; slot < capacity; ++slot) {
      if (state[slot] == store::kDone) {
        done.emplace_back(store::to_text(ids[slot]), slot);
      } else if (state[slot] == store::kFailed) {
        failed.push_back(slot);
      } else {
        require(state[slot] == store::kEmpty, "{}: slot {} has the unknown state {}", path.string(),
                slot, state[slot]);
      }
    }
    std::sort(done.begin(), done.end());
    for (auto& [id, slot] : done) {
      require(sample_ids.empty() || sample_ids.back() != id, "{}: sample '{}' occurs twice",
              path.string(), id);
      sample_ids.push_back(std::move(id));
      slots.push_back(slot);
    }
  }

  size_t position(int64_t index) const {
    TORCH_CHECK_INDEX(index >= 0 && index < static_cast<int64_t>(slots.size()), path.string(),
                      ": sample ", index, " of ", slots.size());
    return static_cast<size_t>(index);
  }
  std::string where(size_t position) const {
    return fmt::format("{}: sample '{}'", path.string(), sample_ids[position]);
  }
};

LatentStore::LatentStore(const std::filesystem::path& path) : impl_(std::make_unique<Impl>(path)) {}
LatentStore::~LatentStore() = default;
const std::filesystem::path& LatentStore::path() const {
  return impl_->path;
}
const StoreLayout& LatentStore::layout() const {
  return impl_->layout;
}
int64_t LatentStore::size() const {
  return static_cast<int64_t>(impl_->slots.size());
}
int64_t LatentStore::capacity() const {
  return impl_->capacity;
}

std::vector<FailedSample> LatentStore::failures() const {
  std::vector<FailedSample> out;
  for (const int64_t slot : impl_->failed) {
    const std::string where = fmt::format("{}: slot {}", impl_->path.string(), slot);
    out.push_back({store::to_text(impl_->file.read_rows("sample_id", slot, 1)),
                   store::reason_from_bytes(impl_->file.read_rows("about", slot, 1), where)});
  }
  return out;
}

const std::string& LatentStore::sample_id(int64_t index) const {
  return impl_->sample_ids[impl_->position(index)];
}

Clip LatentStore::read(int64_t index) const {
  const size_t position = impl_->position(index);
  const int64_t slot = impl_->slots[position];
  const std::string where = impl_->where(position);
  const store::Row row = store::read_row(impl_->file, impl_->layout, slot);
  require(store::checksum(row) == impl_->checksums[slot].item<int64_t>(),
          "{}: its checksum is wrong: the file was damaged after it was written", where);
  Clip clip;
  clip.sample_id = impl_->sample_ids[position];
  store::about_from_bytes(row.about, clip, where);
  clip.latents = row.latents[0].to(at::kFloat);
  clip.world_to_camera = row.world_to_camera[0];
  clip.intrinsics = row.intrinsics[0];
  clip.text = row.text.defined() ? row.text[0].to(at::kFloat) : at::zeros({0, 0});
  if (row.ode_states.defined()) {
    clip.ode_states = row.ode_states[0].to(at::kFloat);
  }
  store::require_valid(clip, impl_->layout, where);
  return clip;
}

std::string LatentStore::caption(int64_t index) const {
  const size_t position = impl_->position(index);
  Clip clip;
  store::about_from_bytes(impl_->file.read_rows("about", impl_->slots[position], 1), clip,
                          impl_->where(position));
  return clip.caption;
}

}  // namespace minwm::data
