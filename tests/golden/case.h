#pragma once
// A golden case and how a kind is replayed. One file per area registers its kinds:
//
//   namespace { void replay_rope(const Case& c, Report& r) { r.compare("cos.16", ours,
//   c.out("cos.16")); } } static const bool registered = register_kind("wan.rope.table",
//   replay_rope);

#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include "minwm/core/safetensors.h"

namespace minwm::golden {

struct Case {
  explicit Case(const std::string& path);
  std::string path, kind, about;
  nlohmann::ordered_json config;
  double rtol = 0, atol = 0;
  Safetensors file;
  at::Tensor tensor(const std::string& full_name) const {
    read_.insert(full_name);
    return file.get(full_name);
  }
  at::Tensor in(const std::string& name) const { return tensor("in/" + name); }
  at::Tensor out(const std::string& name) const { return tensor("out/" + name); }
  at::Tensor param(const std::string& name) const { return tensor("param/" + name); }
  at::Tensor grad(const std::string& name) const { return tensor("grad/" + name); }
  bool has(const std::string& full_name) const { return file.contains(full_name); }
  /// Names with this prefix ("grad/"), the prefix removed.
  std::vector<std::string> under(const std::string& prefix) const;
  /// The expected results ("out/…", "grad/…") that no replay asked for: a replay that leaves one
  /// out is no pass.
  std::vector<std::string> unread_results() const;

 private:
  mutable std::set<std::string> read_;
};

/// Collects comparisons. |ours - reference| <= atol + rtol |reference| elementwise.
class Report {
 public:
  explicit Report(const Case& c) : case_(c) {}
  void compare(const std::string& name, const at::Tensor& ours, const at::Tensor& reference);
  void compare(const std::string& name, const at::Tensor& ours, const at::Tensor& reference,
               double rtol, double atol);
  void equal(const std::string& name, const at::Tensor& ours,
             const at::Tensor& reference);  ///< exact
  void check(const std::string& name, bool holds, const std::string& message = "");
  bool ok() const { return failures_.empty() && compared_ > 0; }
  double max_abs() const { return max_abs_; }
  double max_rel() const { return max_rel_; }
  const std::vector<std::string>& failures() const { return failures_; }
  int compared() const { return compared_; }

 private:
  const Case& case_;
  int compared_ = 0;
  double max_abs_ = 0, max_rel_ = 0;
  std::vector<std::string> failures_;
};

using Replay = void (*)(const Case&, Report&);
bool register_kind(const std::string& kind, Replay replay);

}  // namespace minwm::golden
