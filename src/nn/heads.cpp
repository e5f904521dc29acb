#include "minwm/nn/heads.h"

#include <torch/torch.h>

#include "cpu/dispatch.h"
#include "minwm/nn/embedding.h"

namespace minwm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Optional = std::optional<at::Tensor>;  // autograd takes no undefined tensors

/// Frames of all clips: what the kernels count in. Without matrices a clip is one frame.
int64_t frames_of(const at::Tensor& matrices) {
  return matrices.defined() ? matrices.size(1) : 1;
}

const float* pointer(const at::Tensor& x) {
  return x.defined() ? cpu::data<float>(x) : nullptr;
}

/// x is the tokens-outside tensor: [B, N, A, D] with heads and dims dense.
cpu::HeadShape shape_of(const at::Tensor& x, const at::Tensor& matrices) {
  TORCH_INTERNAL_ASSERT(x.size(3) % 4 == 0 && x.size(1) % frames_of(matrices) == 0);
  return {x.size(1),         x.size(2),   x.size(3),
          x.stride(0),       x.stride(1), x.size(1) / frames_of(matrices),
          matrices.defined()};
}

struct FusedSplit : torch::autograd::Function<FusedSplit> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const Optional& rotary_table, const Optional& frame_matrices) {
    const at::Tensor rotary = rotary_table.value_or(at::Tensor()),
                     matrices = frame_matrices.value_or(at::Tensor());
    const bool dense = input.stride(3) == 1 && input.stride(2) == input.size(3);
    const at::Tensor x = dense ? input : input.contiguous();
    const auto shape = shape_of(x, matrices);
    const int64_t paths = shape.camera ? 2 : 1;
    at::Tensor out =
        at::empty({x.size(0), paths * shape.heads, shape.tokens, shape.dim}, x.options());
    cpu::with_type(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(x.size(0) * frames_of(matrices),
                    shape.tokens_per_frame * paths * shape.heads * shape.dim,
                    [&](int64_t begin, int64_t end) {
                      cpu::split_heads(cpu::data<T>(x), pointer(rotary), pointer(matrices),
                                       cpu::data<T>(out), shape, begin, end);
                    });
    });
    context->save_for_backward({rotary, matrices});
    context->saved_data["sizes"] = x.sizes();
    return out.transpose(1, 2);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rotary = saved[0], &matrices = saved[1];
    const at::Tensor dout = gradients[0].transpose(1, 2).contiguous();
    at::Tensor dx = at::empty(context->saved_data["sizes"].toIntVector(), dout.options());
    const auto shape = shape_of(dx, matrices);
    cpu::with_type(dx.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      cpu::parallel(
          dx.size(0) * frames_of(matrices), shape.tokens_per_frame * shape.heads * shape.dim * 2,
          [&](int64_t begin, int64_t end) {
            cpu::split_heads_backward(cpu::data<T>(dout), pointer(rotary), pointer(matrices),
                                      cpu::data<T>(dx), shape, begin, end);
          });
    });
    return {dx, at::Tensor(), at::Tensor()};
  }
};

/// Copies between heads [B, P A, N, D] and rows [B, N, P A D]; `back` from the second to the first.
void merge(const at::Tensor& heads, const at::Tensor& rows, const at::Tensor& matrices, bool back) {
  const int64_t paths = matrices.defined() ? 2 : 1, tokens = heads.size(2);
  const cpu::HeadShape shape{tokens, heads.size(1) / paths,        heads.size(3),     0,
                             0,      tokens / frames_of(matrices), matrices.defined()};
  cpu::with_type(heads.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    cpu::parallel(heads.size(0) * frames_of(matrices),
                  shape.tokens_per_frame * heads.size(1) * shape.dim,
                  [&](int64_t begin, int64_t end) {
                    cpu::merge_heads(cpu::data<T>(heads), pointer(matrices), cpu::data<T>(rows),
                                     shape, back, begin, end);
                  });
  });
}

struct FusedMerge : torch::autograd::Function<FusedMerge> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const Optional& frame_matrices) {
    const at::Tensor matrices = frame_matrices.value_or(at::Tensor());
    const at::Tensor heads =
        input.transpose(1, 2).contiguous();  // no copy: attention writes heads first
    at::Tensor rows =
        at::empty({heads.size(0), heads.size(2), heads.size(1) * heads.size(3)}, heads.options());
    merge(heads, rows, matrices, false);
    context->save_for_backward({matrices});
    context->saved_data["sizes"] = heads.sizes();
    return rows;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor matrices = context->get_saved_variables()[0], rows = gradients[0].contiguous();
    at::Tensor heads = at::empty(context->saved_data["sizes"].toIntVector(), rows.options());
    merge(heads, rows, matrices, true);
    return {heads.transpose(1, 2), at::Tensor()};
  }
};

Optional dense(const at::Tensor& x) {
  return x.defined() ? Optional(x.contiguous()) : std::nullopt;
}

}  // namespace

at::Tensor split_heads(const at::Tensor& x, const at::Tensor& rotary, const at::Tensor& matrices) {
  if (cpu::fused(x)) {
    const at::Tensor table = rotary.defined() ? at::view_as_real(rotary) : rotary;
    return FusedSplit::apply(x, dense(table), dense(matrices));
  }
  const at::Tensor first = rotary.defined() ? apply_rotary(x, rotary) : x;
  return matrices.defined() ? at::cat({first, apply_frame_matrices(x, matrices)}, 2) : first;
}

at::Tensor merge_heads(const at::Tensor& heads, const at::Tensor& matrices) {
  if (cpu::fused(heads)) {
    return FusedMerge::apply(heads, dense(matrices));
  }
  if (!matrices.defined()) {
    return heads.flatten(2);
  }
  const int64_t half = heads.size(2) / 2;
  const at::Tensor camera = apply_frame_matrices(heads.narrow(2, half, half), matrices);
  return at::cat({heads.narrow(2, 0, half), camera}, 2).flatten(2);
}

}  // namespace minwm::nn
