#pragma once
// Ring attention: every rank keeps its queries while all keys and values pass by.

#include <torch/torch.h>

#include "minwm/comm/communicator.h"
#include "minwm/nn/frame_plan.h"
#include "minwm/nn/frame_rows.h"

namespace minwm::parallel {

struct Ring : torch::CustomClassHolder {
  std::shared_ptr<comm::Communicator> ranks;
  nn::FramePlan plan;
  nn::FrameRows tokens = 0;  ///< whole frames; rank g holds piece g of all
};

/// nn::attend over `plan`; q, k, v [B, this rank's rows, A, D]. Differentiable.
at::Tensor ring_attend(const c10::intrusive_ptr<Ring>& ring, const at::Tensor& q,
                       const at::Tensor& k, const at::Tensor& v);

}  // namespace minwm::parallel
