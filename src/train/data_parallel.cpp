#include "minwm/train/data_parallel.h"

#include <algorithm>

#include "minwm/core/error.h"

namespace minwm::train {
namespace {

// A collective of 2 MiB is past the latency of a network; more than a handful of buckets overlap no
// better.
constexpr int64_t kSmallestBucket = 512 * 1024, kLargestBucket = 32 * 1024 * 1024;
constexpr int64_t kWantedBuckets = 8;

struct Bucket {
  at::Tensor flat;
  size_t first = 0, count = 0;  // its parameters, in bucket order
  size_t missing = 0;           // of them without gradient from this backward so far
  std::unique_ptr<comm::Work> work;
};

class Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit Hook(std::function<void()> action) : action_(std::move(action)) {}
  void operator()(const torch::autograd::Variable&) override { action_(); }

 private:
  std::function<void()> action_;
};

}  // namespace

struct DataParallel::Impl {
  comm::Mesh mesh;
  NamedParameters named;
  std::vector<Place> places;
  std::vector<at::Tensor> parameters, gradients;  // in bucket order: last registered first
  std::vector<size_t> bucket_of;
  std::vector<bool> touched;
  std::vector<Bucket> buckets;
  size_t next_bucket = 0;
  bool reducing = false;

  void make_buckets() {
    int64_t total = 0;
    for (const auto& p : parameters) {
      total += p.numel();
    }
    const int64_t wanted = std::clamp(total / kWantedBuckets, kSmallestBucket, kLargestBucket);
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (sizes.empty() || sizes.back() >= wanted) {
        sizes.push_back(0);
        buckets.emplace_back().first = i;
      }
      sizes.back() += parameters[i].numel();
      buckets.back().count += 1;
      bucket_of.push_back(buckets.size() - 1);
    }
    for (size_t b = 0; b < buckets.size(); ++b) {
      buckets[b].flat =
          at::zeros({sizes[b]}, parameters[buckets[b].first].options().dtype(at::kFloat));
      int64_t offset = 0;
      for (size_t i = buckets[b].first; i < buckets[b].first + buckets[b].count; ++i) {
        gradients.push_back(
            buckets[b].flat.narrow(0, offset, parameters[i].numel()).view(parameters[i].sizes()));
        offset += parameters[i].numel();
      }
    }
  }

  void accumulated(size_t index) {
    touched[index] = true;
    if (reducing) {
      --buckets[bucket_of[index]].missing;
      start_full_buckets();
    }
  }

  void start_full_buckets() {
    while (next_bucket < buckets.size() && buckets[next_bucket].missing == 0) {
      start(buckets[next_bucket++]);
    }
  }

  void start(Bucket& bucket) {
    if (mesh.replicate->size() > 1) {
      bucket.work = mesh.replicate->all_reduce_async(bucket.flat, "gradients");
    }
  }
};

DataParallel::DataParallel(const comm::Mesh& mesh, NamedParameters parameters)
    : impl_(std::make_unique<Impl>()) {
  auto& impl = *impl_;
  impl.mesh = mesh;
  for (auto item = parameters.rbegin(); item != parameters.rend(); ++item) {
    impl.parameters.push_back(item->second);
  }
  for (const auto& [name, p] : parameters) {
    impl.places.push_back({p.sizes().vec(), 0});
  }
  impl.named = std::move(parameters);
  impl.make_buckets();
  impl.touched.resize(impl.parameters.size());
  for (size_t i = 0; i < impl.parameters.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(
        impl.parameters[i],
        std::make_unique<Hook>([owner = impl_.get(), i] { owner->accumulated(i); }));
  }
}

DataParallel::~DataParallel() {
  for (const auto& p : impl_->parameters) {
    torch::autograd::impl::set_post_acc_grad_hooks(p, nullptr);
  }
}

const NamedParameters& DataParallel::parameters() const {
  return impl_->named;
}
const std::vector<Place>& DataParallel::places() const {
  return impl_->places;
}
std::shared_ptr<comm::Communicator> DataParallel::helpers() const {
  return impl_->mesh.replicate->size() > 1 ? impl_->mesh.replicate : nullptr;
}

void DataParallel::begin_step() {
  auto& impl = *impl_;
  impl.reducing = false;
  impl.next_bucket = 0;
  for (auto& bucket : impl.buckets) {
    bucket.flat.zero_();
    bucket.missing = bucket.count;
  }
  for (size_t i = 0; i < impl.parameters.size(); ++i) {
    impl.parameters[i].mutable_grad() = impl.gradients[i];
    impl.touched[i] = false;
  }
}

void DataParallel::reduce_in_backward() {
  impl_->reducing = true;
}

void DataParallel::finish_gradients() {
  auto& impl = *impl_;
  // A parameter that this graph does not reach leaves its bucket unfilled; ranks agree, as their
  // graphs are equal.
  while (impl.next_bucket < impl.buckets.size()) {
    impl.start(impl.buckets[impl.next_bucket++]);
  }
  impl.reducing = false;
  for (auto& bucket : impl.buckets) {
    if (bucket.work) {
      bucket.work->wait();
      bucket.work.reset();
    }
  }
  for (size_t i = 0; i < impl.parameters.size(); ++i) {
    if (!impl.touched[i]) {
      impl.parameters[i].mutable_grad().reset();
    }
  }
}

NamedParameters named_parameters(const torch::nn::Module& module) {
  NamedParameters parameters;
  for (const auto& item : module.named_parameters()) {
    parameters.emplace_back(item.key(), item.value());
  }
  return parameters;
}

}  // namespace minwm::train
