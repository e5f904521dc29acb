#include "case.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <spdlog/fmt/ranges.h>

#include "kinds.h"
#include "minwm/core/error.h"

namespace minwm::golden {
namespace {

std::map<std::string, Replay>& table() {
  static std::map<std::string, Replay> kinds;
  return kinds;
}

const std::string& metadata(const Safetensors& file, const std::string& path,
                            const std::string& key) {
  const auto found = file.metadata().find(key);
  require(found != file.metadata().end(), "{}: metadata '{}' is missing", path, key);
  return found->second;
}

double tolerance(const Safetensors& file, const std::string& path, const std::string& key) {
  const std::string& text = metadata(file, path, key);
  size_t used = 0;
  double value = -1;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  require(used == text.size() && std::isfinite(value) && value >= 0,
          "{}: metadata {} = '{}', expected a number of 0 or more", path, key, text);
  return value;
}

/// Bool, integers, floats and complex numbers are never compared with one another.
int dtype_family(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return type == at::kBool                  ? 0
         : c10::isIntegralType(type, false) ? 1
         : c10::isFloatingType(type)        ? 2
                                            : 3;
}

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", c10::toString(tensor.scalar_type()),
                     fmt::join(tensor.sizes(), ", "));
}

/// As float64, or int64 where that is the exact comparison.
at::Tensor widen(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().cpu();
  return dtype_family(host) == 2 ? host.to(at::kDouble) : host.to(at::kLong);
}

}  // namespace

Case::Case(const std::string& file_path) : path(file_path), kind(), about(), file(file_path) {
  kind = metadata(file, path, "kind");
  const auto described = file.metadata().find("about");
  about = described == file.metadata().end() ? "" : described->second;
  rtol = tolerance(file, path, "rtol");
  atol = tolerance(file, path, "atol");
  try {
    config = nlohmann::ordered_json::parse(metadata(file, path, "config"));
  } catch (const nlohmann::json::exception& error) {
    fail("{}: metadata 'config' is not valid JSON: {}", path, error.what());
  }
}

std::vector<std::string> Case::under(const std::string& prefix) const {
  std::vector<std::string> names;
  for (const std::string& name : file.names()) {
    if (name.starts_with(prefix)) {
      names.push_back(name.substr(prefix.size()));
    }
  }
  return names;
}

std::vector<std::string> Case::unread_results() const {
  std::vector<std::string> names;
  for (const std::string& name : file.names()) {
    if ((name.starts_with("out/") || name.starts_with("grad/")) && !read_.contains(name)) {
      names.push_back(name);
    }
  }
  return names;
}

void Report::compare(const std::string& name, const at::Tensor& ours, const at::Tensor& reference) {
  compare(name, ours, reference, case_.rtol, case_.atol);
}

void Report::compare(const std::string& name, const at::Tensor& ours, const at::Tensor& reference,
                     double rtol, double atol) {
  ++compared_;
  if (!ours.defined() || !reference.defined()) {
    failures_.push_back(
        fmt::format("{}: {} is undefined", name, ours.defined() ? "reference" : "ours"));
    return;
  }
  if (ours.sizes() != reference.sizes() || dtype_family(ours) != dtype_family(reference) ||
      dtype_family(ours) == 3) {
    failures_.push_back(
        fmt::format("{}: ours is {}, reference {}", name, shape_text(ours), shape_text(reference)));
    return;
  }
  if (ours.numel() == 0) {
    return;
  }
  const at::Tensor a = widen(ours);
  const at::Tensor b = widen(reference);
  // NaN must meet NaN and an infinity the same infinity; the rest is measured.
  const at::Tensor same = a.eq(b).logical_or(a.isnan().logical_and(b.isnan()));
  const at::Tensor finite = a.isfinite().logical_and(b.isfinite());
  const int64_t unlike = same.logical_or(finite).logical_not().sum().item<int64_t>();
  const at::Tensor zero = at::zeros({}, at::kDouble);
  const at::Tensor error =
      at::where(finite.logical_and(same.logical_not()), (a - b).abs().to(at::kDouble), zero);
  const at::Tensor size = at::where(finite, b.abs().to(at::kDouble), zero);
  const double largest = error.max().item<double>();
  const double relative = largest / std::max(size.max().item<double>(), 1e-30);
  const int64_t outside = error.gt(atol + rtol * size).sum().item<int64_t>();
  max_abs_ = std::max(max_abs_, largest);
  max_rel_ = std::max(max_rel_, largest == 0 ? 0 : relative);
  if (unlike > 0) {
    failures_.push_back(fmt::format("{}: {} of {} values are NaN or infinite on one side only",
                                    name, unlike, a.numel()));
  } else if (outside > 0) {
    failures_.push_back(fmt::format(
        "{}: {} of {} values outside atol {:.3g} + rtol {:.3g}, max_abs {:.3e}, max_rel {:.3e}",
        name, outside, a.numel(), atol, rtol, largest, relative));
  }
}

void Report::equal(const std::string& name, const at::Tensor& ours, const at::Tensor& reference) {
  compare(name, ours, reference, 0, 0);
}

void Report::check(const std::string& name, bool holds, const std::string& message) {
  ++compared_;
  if (!holds) {
    failures_.push_back(message.empty() ? name : fmt::format("{}: {}", name, message));
  }
}

bool register_kind(const std::string& kind, Replay replay) {
  return table().emplace(kind, replay).second;
}

Replay find_kind(const std::string& kind) {
  const auto found = table().find(kind);
  return found == table().end() ? nullptr : found->second;
}

}  // namespace minwm::golden
