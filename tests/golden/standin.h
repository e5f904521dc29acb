#pragma once
// The stand-in network of the stage cases (spec stages 20.1) as a Backbone, and what their replays
// share. A case's config.net gives its sizes and form.

#include <memory>
#include <string>
#include <vector>

#include "case.h"
#include "minwm/models/backbone.h"
#include "wan_model.h"

namespace minwm::golden {

/// One call of the network, as the cases record it.
struct Call {
  at::Tensor x, t;    ///< [B, n, C, h, w] without image channels, [B, n]
  at::Tensor flow;    ///< float32, before any cast; of committing calls too
  at::Tensor hidden;  ///< x with the image channels: what the network reads
  int64_t start = 0;  ///< frame; 0 for forward calls
  bool grad = false, commit = false;
};

/// Per latent pixel: w2 tanh(w1 [x, context, text, camera, t / 1000] + b1) + b2, where the context
/// is a mean of tanh(wk x + bk + wkt t / 1000) over the frames that the pixel may look at.
class StandIn : public models::Backbone {
 public:
  enum class Form { kWan, kHy, kRolling };
  /// `net` is config.net; with `wrapped` parameters are called model.wk …, else wk ….
  StandIn(const nlohmann::ordered_json& net, bool wrapped);

  at::Tensor forward(const models::ForwardInput& input) override;
  /// Writes features only with commit; the reference writes in every call, and overwrites.
  at::Tensor stream(const models::StreamInput& input, models::KvCache& cache) override;
  std::unique_ptr<models::KvCache> make_cache(const models::CacheOptions& options, int64_t height,
                                              int64_t width) override;
  std::vector<std::shared_ptr<torch::nn::Module>> units() override { return {}; }
  int64_t latent_channels() const override { return out_channels_; }
  int64_t text_dim() const override { return text_dim_; }
  void set_compute_dtype(at::ScalarType) override {}
  void set_activation_checkpointing(bool) override {}

  bool record = false;
  std::vector<Call> calls;     ///< of stream()
  std::vector<Call> forwards;  ///< of forward()

 private:
  at::Tensor text_of(const models::Conditions& conditions) const;
  at::Tensor features(const at::Tensor& hidden, const at::Tensor& t) const;
  at::Tensor flow(const at::Tensor& hidden, const at::Tensor& t, const at::Tensor& context,
                  const at::Tensor& text, const camera::Cameras& cameras) const;
  at::Tensor as_returned(const at::Tensor& flow, const at::Tensor& latents) const;

  Form form_;
  int64_t out_channels_, text_dim_;
  at::Tensor wk_, bk_, wkt_, w1_, b1_, w2_, b2_;
};

/// The network of a case with the parameters param/<prefix>…, e.g. prefix "generator/".
std::shared_ptr<StandIn> standin(const Case& c, const std::string& prefix = "");

/// Wan: in/<prefix>prompt_embeds, viewmats, Ks. The negative text of a case, for
/// Conditions::with_text_of, is in/<prefix>negative_prompt_embeds.
models::Conditions standin_conditions(const Case& c, const std::string& prefix = "");
models::Conditions standin_negative(const Case& c, const std::string& prefix = "");
/// HY: text, glyphs, vision, cameras and the image channels (first-frame latent and mask for the
/// task i2v, zeros for t2v) over `frames` frames; the negative ones hold text and glyphs only.
models::Conditions hy_conditions(const Case& c, int64_t frames);
models::Conditions hy_negative(const Case& c);

/// Every grad/<prefix>NAME against the module's gradient, with the stage cases' own tolerance: atol
/// = max(the case's, 1e-3 max|reference|). A gradient that is missing counts as zero.
void compare_stage_gradients(const Case& c, Report& report, const torch::nn::Module& module,
                             const std::string& prefix = "");

/// Every out/<prefix>NAME against the tensors `ours`, by name: parameters after `steps` optimizer
/// steps at rate `lr`. Where one of the gradients grad/<gradients>NAME is below 1e-4 of its largest
/// entry (noise decides the direction of Adam's step there), 2 lr steps of difference are allowed.
void compare_updated(const Case& c, Report& report, const std::string& prefix,
                     const std::map<std::string, at::Tensor>& ours,
                     const std::vector<std::string>& gradients, double lr, int64_t steps,
                     double atol);
inline void compare_updated(const Case& c, Report& report, const std::string& prefix,
                            const std::map<std::string, at::Tensor>& ours,
                            const std::string& gradients, double lr, int64_t steps, double atol) {
  compare_updated(c, report, prefix, ours, std::vector{gradients}, lr, steps, atol);
}

/// A module's parameters by name, detached.
std::map<std::string, at::Tensor> named_tensors(const torch::nn::Module& module);

}  // namespace minwm::golden
