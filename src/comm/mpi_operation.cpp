#include "mpi_operation.h"

#include <algorithm>

#include "minwm/core/error.h"
#include "mpi_communicator.h"

namespace minwm::comm {

MpiOperation::~MpiOperation() {
  // Of an operation that failed while it was posted, MPI may still write to the buffers: they are
  // left to the end of the process, which is near.
  if (std::any_of(requests_.begin(), requests_.end(),
                  [](MPI_Request request) { return request != MPI_REQUEST_NULL; })) {
    static_cast<void>(new std::vector<at::Tensor>(std::move(kept_)));
    static_cast<void>(new std::function<void()>(std::move(action_)));
  }
}

MPI_Request* MpiOperation::request(int expected_bytes) {
  requests_.push_back(MPI_REQUEST_NULL);
  expected_bytes_.push_back(expected_bytes);
  return &requests_.back();
}

bool MpiOperation::poll() {
  while (true) {
    statuses_.resize(requests_.size());
    int completed = 0;
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &completed,
                                 statuses_.data());
    if (code != MPI_SUCCESS) {
      // A receive that was too small is reported per request.
      const auto failed = std::find_if(statuses_.begin(), statuses_.end(), [](const MPI_Status& s) {
        return s.MPI_ERROR != MPI_SUCCESS && s.MPI_ERROR != MPI_ERR_PENDING;
      });
      const bool per_request = code == MPI_ERR_IN_STATUS && failed != statuses_.end();
      check_mpi(per_request ? failed->MPI_ERROR : code, call().name().c_str());
    }
    if (completed == 0) {
      return false;
    }
    check_sizes();
    requests_.clear();
    expected_bytes_.clear();
    if (const auto action = std::exchange(action_, nullptr)) {
      action();
    }
    if (requests_.empty()) {
      kept_.clear();
      return true;
    }
  }
}

void MpiOperation::check_sizes() {
  for (size_t i = 0; i < statuses_.size(); ++i) {
    if (expected_bytes_[i] >= 0) {
      int bytes = 0;
      check_mpi(MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes), "MPI_Get_count");
      require(bytes == expected_bytes_[i], "{} '{}': received {} bytes, expected {}", call().op,
              call().what, bytes, expected_bytes_[i]);
    }
  }
}

namespace {

template <class Action>
void for_parts(int64_t begin, int64_t end, int64_t most, bool at_least_one, const Action& action) {
  if (begin == end && at_least_one) {
    action(begin, 0);
  }
  for (; begin < end; begin += most) {
    action(begin, static_cast<int>(std::min(most, end - begin)));
  }
}

}  // namespace

void Messages::send(MpiOperation& operation, const at::Tensor& from, int64_t begin, int64_t end,
                    int peer, bool at_least_one) const {
  const char* const data = static_cast<const char*>(from.const_data_ptr());
  for_parts(begin, end, most, at_least_one, [&](int64_t first, int count) {
    check_mpi(MPI_Isend(data + first * width, count, type, peer, tag, handle, operation.request()),
              "MPI_Isend");
  });
  if (peer != rank) {
    operation.group().bytes_sent += (end - begin) * width;
  }
}

void Messages::receive(MpiOperation& operation, const at::Tensor& to, int64_t begin, int64_t end,
                       int peer, bool at_least_one) const {
  char* const data = static_cast<char*>(to.mutable_data_ptr());
  for_parts(begin, end, most, at_least_one, [&](int64_t first, int count) {
    check_mpi(MPI_Irecv(data + first * width, count, type, peer, tag, handle,
                        operation.request(count * static_cast<int>(width))),
              "MPI_Irecv");
  });
}

}  // namespace minwm::comm
