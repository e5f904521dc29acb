#include "minwm/data/upstream_sampler.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "minwm/core/error.h"

namespace minwm::data {

std::vector<int64_t> upstream_permutation(int64_t count, uint64_t seed) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor order = at::randperm(count, generator, at::kLong);
  const int64_t* first = order.const_data_ptr<int64_t>();
  return {first, first + count};
}

std::vector<int64_t> upstream_order(const UpstreamSampler& sampler, int64_t rank) {
  const auto& [samples, batch, ranks, parallel, drop_last, drop_first, seed] = sampler;
  require(samples > (drop_first ? 1 : 0), "sampler: {} samples, expected at least {}", samples,
          drop_first ? 2 : 1);
  require(batch > 0, "sampler: a batch of {}, expected at least 1", batch);
  require(ranks > 0 && parallel > 0 && ranks % parallel == 0,
          "sampler: {} ranks cannot be split into groups of {}", ranks, parallel);
  require(rank >= 0 && rank < ranks, "sampler: rank {} of {} does not exist", rank, ranks);

  std::vector<int64_t> order = upstream_permutation(samples, seed);
  if (drop_first) {
    std::erase(order, 0);
  }
  const int64_t groups = ranks / parallel;
  const auto count = static_cast<int64_t>(order.size());
  if (drop_last) {
    order.resize(static_cast<size_t>(count / batch / groups * groups * batch));
  } else if (const int64_t over = count % (groups * batch); over != 0) {
    // Only once around, as upstream: with few samples the last batches stay short.
    const int64_t missing = std::min(groups * batch - over, count);
    order.reserve(static_cast<size_t>(count + missing));
    std::copy_n(order.begin(), missing, std::back_inserter(order));
  }
  std::vector<int64_t> own;
  for (auto i = static_cast<size_t>(rank / parallel); i < order.size();
       i += static_cast<size_t>(groups)) {
    own.push_back(order[i]);
  }
  return own;
}

}  // namespace minwm::data
