#include "minwm/comm/communicator.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "minwm/core/error.h"

namespace minwm::comm {

void Communicator::broadcast(at::Tensor inout, int root, CallSite what) {
  broadcast_async(std::move(inout), root, what)->wait();
}

void Communicator::all_reduce(at::Tensor inout, CallSite what) {
  all_reduce_async(std::move(inout), what)->wait();
}

void Communicator::all_gather(const at::Tensor& shard, at::Tensor full, CallSite what) {
  all_gather_async(shard, std::move(full), what)->wait();
}

void Communicator::reduce_scatter(const at::Tensor& full, at::Tensor shard, CallSite what) {
  reduce_scatter_async(full, std::move(shard), what)->wait();
}

void Communicator::all_to_all(const at::Tensor& send, const std::vector<int64_t>& send_counts,
                              at::Tensor recv, const std::vector<int64_t>& recv_counts,
                              CallSite what) {
  all_to_all_async(send, send_counts, std::move(recv), recv_counts, what)->wait();
}

std::string Communicator::broadcast_string(std::string value, int root, CallSite what) {
  at::Tensor length = at::full({1}, static_cast<int64_t>(value.size()), at::kLong);
  host().broadcast(length, root, what);
  value.resize(static_cast<size_t>(length.item<int64_t>()));
  host().broadcast(at::from_blob(value.data(), {static_cast<int64_t>(value.size())}, at::kByte),
                   root, what);
  return value;
}

std::vector<double> Communicator::gather_scalars(double value, CallSite what) {
  std::vector<double> values(static_cast<size_t>(size()));
  host().all_gather(at::full({1}, value, at::kDouble),
                    at::from_blob(values.data(), {static_cast<int64_t>(size())}, at::kDouble),
                    what);
  return values;
}

double Communicator::all_reduce_max(double value, CallSite what) {
  const auto values = gather_scalars(value, what);
  return *std::max_element(values.begin(), values.end());
}

double Communicator::all_reduce_sum(double value, CallSite what) {
  double sum = 0;
  for (const double part : gather_scalars(value, what)) {
    sum += part;
  }
  return sum;
}

void Communicator::check_order() {
  const auto mine = static_cast<int64_t>(ledger());
  at::Tensor all = at::empty({size()}, at::kLong);
  host().all_gather(at::full({1}, mine, at::kLong), all, "check_order");
  for (int other = 0; other < size(); ++other) {
    if (all[other].item<int64_t>() != all[0].item<int64_t>()) {
      throw Error(fmt::format("rank {} made other collective calls than rank 0", other),
                  kExitFailure);
    }
  }
}

}  // namespace minwm::comm
