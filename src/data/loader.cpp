#include "minwm/data/loader.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include <ATen/ATen.h>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::data {
namespace {

using Clock = std::chrono::steady_clock;

/// The clip at each position of the endless row of epochs.
class ClipOrder {
 public:
  ClipOrder(uint64_t seed, int64_t clips) : seed_(seed), clips_(clips) {}
  int64_t at(int64_t position) {
    const int64_t epoch = position / clips_;
    if (epoch != epoch_) {
      const RandomKey key{seed_, "data.order", static_cast<uint64_t>(epoch)};
      order_ = random_permutation(clips_, key);
      epoch_ = epoch;
    }
    return order_[static_cast<size_t>(position % clips_)];
  }

 private:
  uint64_t seed_;
  int64_t clips_, epoch_ = -1;
  std::vector<int64_t> order_;
};

}  // namespace

struct Loader::Impl {
  std::vector<std::shared_ptr<const LatentStore>> stores;
  std::vector<int64_t> ends;  ///< of the concatenation, per store
  int64_t global_batch, micro_batch, first_position, rank_batch, step;
  size_t prefetch;
  std::optional<ClipOrder> order;

  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<Batch> ready;
  std::exception_ptr failure;
  double last_wait = 0;
  std::jthread reader;  // last: it stops before what it uses goes

  void check_stores() {
    require(!stores.empty(), "no latent store to read");
    for (const auto& other : stores) {
      require(describe(other->layout()) == describe(stores[0]->layout()),
              "{} holds {}, but {} holds {}: stores that are read together must agree",
              stores[0]->path().string(), describe(stores[0]->layout()), other->path().string(),
              describe(other->layout()));
      ends.push_back((ends.empty() ? 0 : ends.back()) + other->size());
    }
    require(ends.back() > 0, "{}: no complete sample", stores[0]->path().string());
  }

  Clip read(int64_t clip) const {
    const auto end = std::upper_bound(ends.begin(), ends.end(), clip);
    const auto& store = stores[static_cast<size_t>(end - ends.begin())];
    return store->read(clip - (*end - store->size()));
  }

  /// The micro-batch that starts `offset` clips into this rank's share of `step`.
  Batch assemble(int64_t offset) {
    const StoreLayout& l = stores[0]->layout();
    const int64_t b = micro_batch;
    Batch batch;
    batch.latents = at::empty({b, l.frames, l.channels, l.height, l.width});
    batch.conditions.text = at::empty({b, l.text_tokens, l.text_dim});
    auto& cameras = batch.conditions.cameras;
    cameras = {at::empty({b, l.frames, 4, 4}), at::empty({b, l.frames, 3, 3})};
    if (const auto levels = static_cast<int64_t>(l.ode_sigmas.size()); levels > 0) {
      batch.ode_states = at::empty({b, levels + 2, l.frames, l.channels, l.height, l.width});
      batch.given = at::empty({b}, at::kLong);
    }
    for (int64_t i = 0; i < b; ++i) {
      const int64_t in_batch = first_position + offset + i;
      Clip clip = read(order->at(step * global_batch + in_batch));
      batch.latents[i].copy_(clip.latents);
      cameras.world_to_camera[i].copy_(clip.world_to_camera);
      cameras.intrinsics[i].copy_(clip.intrinsics);  // the same for every frame
      if (l.text_tokens > 0) {
        batch.conditions.text[i].copy_(clip.text);
      }
      if (batch.ode_states.defined()) {
        batch.ode_states[i].copy_(clip.ode_states);
        batch.given[i] = clip.given;
      }
      batch.global_samples.push_back(in_batch);
      batch.sample_ids.push_back(std::move(clip.sample_id));
    }
    return batch;
  }

  void read_ahead(const std::stop_token& stop) {
    try {
      for (; !stop.stop_requested(); ++step) {
        for (int64_t offset = 0; offset < rank_batch; offset += micro_batch) {
          Batch batch = assemble(offset);
          std::unique_lock lock(mutex);
          if (!changed.wait(lock, stop, [&] { return ready.size() < prefetch; })) {
            return;
          }
          ready.push_back(std::move(batch));
          changed.notify_all();
        }
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      changed.notify_all();
    }
  }
};

std::vector<std::shared_ptr<const LatentStore>> open_stores(const std::vector<std::string>& paths) {
  std::vector<std::shared_ptr<const LatentStore>> stores;
  for (const std::string& path : paths) {
    stores.push_back(std::make_shared<LatentStore>(path));
    require(stores.back()->size() > 0, "{}: no complete sample", path);
  }
  return stores;
}

Loader::Loader(std::vector<std::shared_ptr<const LatentStore>> stores, uint64_t seed,
               int64_t global_batch, int64_t micro_batch, int64_t data_rank, int64_t data_size,
               int64_t first_step, int64_t prefetch)
    : impl_(std::make_unique<Impl>()) {
  require(micro_batch > 0 && data_size > 0 && global_batch > 0 &&
              global_batch % (data_size * micro_batch) == 0,
          "global batch {} cannot be split over {} data-parallel ranks in micro-batches of {}",
          global_batch, data_size, micro_batch);
  require(data_rank >= 0 && data_rank < data_size && first_step >= 0 && prefetch > 0,
          "loader: rank {} of {}, first step {}, prefetch {}", data_rank, data_size, first_step,
          prefetch);
  impl_->stores = std::move(stores);
  impl_->check_stores();
  impl_->global_batch = global_batch;
  impl_->micro_batch = micro_batch;
  impl_->rank_batch = global_batch / data_size;
  impl_->first_position = data_rank * impl_->rank_batch;
  impl_->step = first_step;
  impl_->prefetch = static_cast<size_t>(prefetch);
  impl_->order.emplace(seed, impl_->ends.back());
  impl_->reader =
      std::jthread([impl = impl_.get()](std::stop_token stop) { impl->read_ahead(stop); });
}

Loader::~Loader() = default;

Batch Loader::next() {
  const auto begin = Clock::now();
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return !impl_->ready.empty() || impl_->failure; });
  impl_->last_wait = std::chrono::duration<double>(Clock::now() - begin).count();
  if (impl_->ready.empty()) {
    std::rethrow_exception(impl_->failure);
  }
  Batch batch = std::move(impl_->ready.front());
  impl_->ready.pop_front();
  impl_->changed.notify_all();
  return batch;
}

double Loader::last_wait() const {
  return impl_->last_wait;
}

}  // namespace minwm::data
