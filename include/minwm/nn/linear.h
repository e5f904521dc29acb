#pragma once
// Layers with weights of their own, under the names of LibTorch's, made by make_parameter.

#include <torch/torch.h>

namespace minwm::nn {

/// weight [out, in], bias [out]; zero until whoever owns it initialises it.
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t in, int64_t out);
  /// x W^T + b in the weight's type.
  at::Tensor forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }
  at::Tensor weight, bias;
};
TORCH_MODULE(Linear);

/// x W^T + b in the compute dtype: float32, or bfloat16 with parameters kept in float32 and cast
/// here. The result has the compute dtype.
at::Tensor linear(const at::Tensor& x, const Linear& layer, at::ScalarType compute);

/// LayerNorm with weight (1) and bias (0) over the last axis.
class AffineLayerNormImpl : public torch::nn::Module {
 public:
  explicit AffineLayerNormImpl(int64_t width, double eps = 1e-5);
  at::Tensor forward(const at::Tensor& x) const {
    return at::layer_norm(x, {x.size(-1)}, weight, bias, eps_);
  }
  at::Tensor weight, bias;

 private:
  double eps_;
};
TORCH_MODULE(AffineLayerNorm);

/// Linear layers that keep their given names as children ("0" and "2" of a published MLP).
class NamedLinearsImpl : public torch::nn::Module {
 public:
  struct Spec {
    std::string name;
    int64_t in, out;
  };
  explicit NamedLinearsImpl(const std::vector<Spec>& specs);
  const Linear& operator[](size_t i) const { return layers_[i]; }

 private:
  std::vector<Linear> layers_;
};
TORCH_MODULE(NamedLinears);

}  // namespace minwm::nn
