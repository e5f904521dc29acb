#pragma once

#include <torch/torch.h>

namespace minwm::nn {

/// x W^T + b in the compute dtype: float32, or bfloat16 with parameters kept in float32 and cast
/// here. The result has the compute dtype.
at::Tensor linear(const at::Tensor& x, const torch::nn::Linear& layer, at::ScalarType compute);

/// Linear layers that keep their given names as children ("0" and "2" of a published MLP).
class NamedLinearsImpl : public torch::nn::Module {
 public:
  struct Spec {
    std::string name;
    int64_t in, out;
  };
  explicit NamedLinearsImpl(const std::vector<Spec>& specs);
  const torch::nn::Linear& operator[](size_t i) const { return layers_[i]; }

 private:
  std::vector<torch::nn::Linear> layers_;
};
TORCH_MODULE(NamedLinears);

}  // namespace minwm::nn
