#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "minwm/models/conditions.h"

namespace minwm::data {

/// One training clip as the latent store holds it (spec data-camera-eval 10.7).
struct Clip {
  std::string sample_id;
  std::string caption;
  std::string trajectory;      ///< canonical pose string, or "" for estimated cameras
  std::string source;          ///< "world:<seed>" or the video's path
  at::Tensor latents;          ///< [T, C, h, w] float32 (stored as float16)
  at::Tensor world_to_camera;  ///< [T, 4, 4] float32, first frame = identity
  at::Tensor intrinsics;       ///< [3, 3] float32, normalised
  at::Tensor text;             ///< [L, text_dim] float32
  at::Tensor ode_states = {};  ///< [S + 2, T, C, h, w] float32, ODE stores only: see StoreLayout
  int64_t given = 0;           ///< ODE stores only: first latents that were given to the teacher
};

/// A micro-batch on its way to a stage. B clips of one data-parallel rank.
struct Batch {
  at::Tensor latents;  ///< [B, T, C, h, w] float32
  models::Conditions conditions;
  at::Tensor
      ode_states;    ///< [B, S + 2, T, C, h, w] float32: states of the teacher's ODE at S noise
                     ///< levels, its endpoint, the real clip; undefined without an ODE store
  at::Tensor given;  ///< [B] int64, with ODE states: how many first latents were given
  std::vector<int64_t> global_samples;  ///< position of each clip in the global batch: the address
                                        ///< of its random draws
  std::vector<std::string> sample_ids;
};

}  // namespace minwm::data
