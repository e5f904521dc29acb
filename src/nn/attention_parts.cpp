// The library's fused kernels, which are no stable interface: they are called here alone.

#include "minwm/nn/attention_parts.h"

#include <array>
#include <cmath>

#include <ATen/ATen.h>

namespace minwm::nn {
namespace {

double scale_of(const at::Tensor& q) {
  return 1 / std::sqrt(static_cast<double>(q.size(3)));
}

/// The CUDA kernels read 16 bytes at a time: columns of zeros change no product.
at::Tensor whole_words(const at::Tensor& x) {
  const int64_t word = 16 / static_cast<int64_t>(x.element_size());
  const int64_t missing = (word - x.size(3) % word) % word;
  return missing == 0 ? x : at::constant_pad_nd(x, {0, missing});
}

}  // namespace

AttentionPart attend_part(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  at::NoGradGuard no_grad;
  const double scale = scale_of(q);
  if (q.is_cpu()) {
    auto [out, log_sum] =
        at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, false, std::nullopt, scale);
    return {out, log_sum};
  }
  const auto found = at::_scaled_dot_product_efficient_attention(
      whole_words(q), whole_words(k), whole_words(v), std::nullopt, true, 0.0, false, scale);
  // Its sums are padded to a multiple of 32 rows.
  return {std::get<0>(found).narrow(3, 0, v.size(3)), std::get<1>(found).narrow(2, 0, q.size(2))};
}

void merge_part(AttentionPart& sum, const AttentionPart& part) {
  at::NoGradGuard no_grad;
  const at::Tensor out = part.out.to(at::kFloat);
  if (!sum.out.defined()) {
    sum = {out, part.log_sum};
    return;
  }
  const at::Tensor log_sum = at::logaddexp(sum.log_sum, part.log_sum);
  const at::Tensor kept = (sum.log_sum - log_sum).exp_().unsqueeze(3),
                   added = (part.log_sum - log_sum).exp_().unsqueeze(3);
  sum = {(sum.out * kept).addcmul_(out, added), log_sum};
}

PartGradients attend_part_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, const AttentionPart& whole) {
  at::NoGradGuard no_grad;
  const double scale = scale_of(q);
  if (q.is_cpu()) {
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        dout, q, k, v, whole.out, whole.log_sum, 0.0, false, std::nullopt, scale);
    return {dq, dk, dv};
  }
  const int64_t rows = q.size(2), padded = (rows + 31) / 32 * 32;
  // Infinity, as the forward kernel pads them: rows past the end then weigh nothing.
  const at::Tensor log_sum = at::constant_pad_nd(whole.log_sum, {0, padded - rows}, INFINITY),
                   none = at::zeros({}, at::TensorOptions(at::kLong));
  const auto found = at::_scaled_dot_product_efficient_attention_backward(
      whole_words(dout), whole_words(q), whole_words(k), whole_words(v), at::Tensor(),
      whole_words(whole.out), log_sum, none, none, 0.0, {true, true, true, false}, false, scale);
  const auto columns = [&](const at::Tensor& x) { return x.narrow(3, 0, q.size(3)); };
  return {columns(std::get<0>(found)), columns(std::get<1>(found)), columns(std::get<2>(found))};
}

}  // namespace minwm::nn
