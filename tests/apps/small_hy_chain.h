#pragma once

#include "tests/apps/small_chain.h"

namespace minwm::testing {

/// Cameras and actions, two blocks: text rows that are read by images and text rows that nobody
/// reads any more.
inline const SmallChain& small_hy_chain() {
  return SmallChain::get("hy-tiny-worldplay", "hy-tiny-worldplay@2");
}

}  // namespace minwm::testing
