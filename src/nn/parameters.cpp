#include "minwm/nn/parameters.h"

namespace minwm::nn {
namespace {

thread_local bool hollow = false;

void resize(const at::Tensor& tensor, size_t bytes) {
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  TORCH_INTERNAL_ASSERT(storage->allocator() != nullptr, "a storage without an allocator");
  // Without bumping versions: whoever saved the tensor for backward expects its bytes back.
  storage->set_data_ptr_noswap(storage->allocator()->allocate(bytes));
  storage->set_nbytes(bytes);
}

}  // namespace

HollowParameters::HollowParameters() : before_(hollow) {
  hollow = true;
}
HollowParameters::~HollowParameters() {
  hollow = before_;
}
bool HollowParameters::active() {
  return hollow;
}

at::Tensor make_parameter(at::IntArrayRef shape, float value) {
  // Memory that was never written is never resident: a hollow parameter costs nothing even here.
  at::Tensor tensor = at::empty(shape, at::kFloat);
  if (hollow) {
    release_storage(tensor);
    return tensor;
  }
  return tensor.fill_(value);
}

void release_storage(const at::Tensor& tensor) {
  resize(tensor, 0);
}

void allocate_storage(const at::Tensor& tensor) {
  resize(tensor, static_cast<size_t>(tensor.numel()) * tensor.element_size());
}

}  // namespace minwm::nn
