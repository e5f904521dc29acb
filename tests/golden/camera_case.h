#pragma once
// What the camera cases share.

#include <string>

#include "case.h"
#include "minwm/core/error.h"

namespace minwm::golden {

/// Poses [N, 7] with each quaternion's sign that of the reference: q and -q are one rotation.
inline at::Tensor match_signs(const at::Tensor& ours, const at::Tensor& reference) {
  if (ours.sizes() != reference.sizes()) {
    return ours;
  }
  const at::Tensor dot = (ours.narrow(1, 3, 4) * reference.narrow(1, 3, 4)).sum(1, true);
  at::Tensor out = ours.clone();
  out.narrow(1, 3, 4).mul_(at::where(dot < 0, -1., 1.).to(ours.scalar_type()));
  return out;
}

/// False if `body` throws Error: the input was refused.
template <class Body>
bool accepts(const Body& body) {
  try {
    body();
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// What is left out of a case must be what the reference refused, and we must refuse it too.
template <class Body>
void check_refused(const Case& c, Report& report, const std::string& name, const Body& body) {
  report.check(name, !accepts(body), "accepted, the reference refuses it");
  report.check(name, !c.has("out/" + name), "is refused but has an expected result");
}

/// Upstream's helper from strings to labels, which swaps left and right against the labels of poses
/// (defect 3 of the spec): kept for the cases, nothing of ours uses it. [frames] int64.
at::Tensor string_labels(const std::string& text, int64_t frames);

}  // namespace minwm::golden
