#include "minwm/models/encoder_parts.h"

#include <spdlog/fmt/ranges.h>

#include "minwm/core/error.h"
#include "minwm/nn/parameters.h"

namespace minwm::models {
namespace {

/// A module that only owns parameters under a published prefix.
struct Named : torch::nn::Module {};

torch::nn::Module& child(torch::nn::Module& parent, const std::string& name) {
  const auto children = parent.named_children();
  if (const auto* found = children.find(name)) {
    return **found;
  }
  return *parent.register_module(name, std::make_shared<Named>());
}

}  // namespace

void require_compute_type(at::ScalarType type, const std::string& encoder) {
  require(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf,
          "{}: cannot compute in {}, expected float32, bfloat16 or float16", encoder,
          c10::toString(type));
}

at::Tensor FrozenWeights::operator()(const std::string& name, at::IntArrayRef shape,
                                     float value) const {
  // As nn::make_parameter, in another type: memory that was never written is never resident.
  at::Tensor tensor = at::empty(shape, type_);
  if (nn::HollowParameters::active()) {
    nn::release_storage(tensor);
  } else {
    tensor.fill_(value);
  }
  torch::nn::Module* module = &root_;
  size_t begin = 0;
  for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', begin)) {
    module = &child(*module, name.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return module->register_parameter(name.substr(begin), tensor, false);
}

FrozenLinear::FrozenLinear(const FrozenWeights& weights, const std::string& name, int64_t in,
                           int64_t out, bool with_bias)
    : weight(weights(name + ".weight", {out, in})) {
  if (with_bias) {
    bias = weights(name + ".bias", {out});
  }
}

FrozenLayerNorm::FrozenLayerNorm(const FrozenWeights& weights, const std::string& name,
                                 int64_t width, double epsilon)
    : weight(weights(name + ".weight", {width}, 1)),
      bias(weights(name + ".bias", {width})),
      eps(epsilon) {}

at::Tensor embed_ids(const at::Tensor& table, const at::Tensor& ids, const std::string& encoder) {
  require(ids.scalar_type() == at::kLong && ids.numel() > 0,
          "{}: token ids are {} [{}], expected "
          "Long with at least one",
          encoder, c10::toString(ids.scalar_type()), fmt::join(ids.sizes(), ", "));
  const auto least = ids.min().item<int64_t>(), most = ids.max().item<int64_t>();
  require(least >= 0 && most < table.size(0),
          "{}: token id {} is outside of the vocabulary of {} tokens", encoder,
          least < 0 ? least : most, table.size(0));
  return at::embedding(table, ids.to(table.device()));
}

std::vector<int64_t> valid_lengths(const at::Tensor& ids, const at::Tensor& mask,
                                   const std::string& encoder) {
  require(ids.dim() == 2 && mask.sizes() == ids.sizes(),
          "{}: ids [{}] and mask [{}], expected [B, L] both", encoder, fmt::join(ids.sizes(), ", "),
          fmt::join(mask.sizes(), ", "));
  const at::Tensor valid = mask.to(at::kCPU).ne(0);
  const at::Tensor counts = valid.sum(1, false, at::kLong);
  const at::Tensor first = at::arange(ids.size(1)).unsqueeze(0).lt(counts.unsqueeze(1));
  require(at::equal(valid, first), "{}: a mask whose valid tokens do not come first", encoder);
  return {counts.const_data_ptr<int64_t>(), counts.const_data_ptr<int64_t>() + counts.numel()};
}

ParameterSource renamed(const ParameterSource& source,
                        const std::function<std::string(const std::string&)>& name) {
  std::map<std::string, std::string> theirs;
  ParameterSource out;
  out.where = source.where;
  for (const auto& [old, shape] : source.shapes) {
    const std::string own = name(old);
    if (own.empty()) {
      continue;
    }
    const auto [place, added] = theirs.emplace(own, old);
    require(added, "{}: '{}' and '{}' are both '{}'", source.where, place->second, old, own);
    out.shapes[own] = shape;
  }
  out.read = [read = source.read, theirs = std::move(theirs)](const std::string& own, int64_t begin,
                                                              int64_t count) {
    return read(theirs.at(own), begin, count);
  };
  return out;
}

void load_encoder(torch::nn::Module& encoder, const ParameterSource& source) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, shape] : source.shapes) {
    tensors[name] = source.read(name, 0, c10::multiply_integers(shape)).view(shape);
  }
  for (const auto& parameter : encoder.parameters()) {
    if (parameter.numel() > 0 && parameter.storage().nbytes() == 0) {
      nn::allocate_storage(parameter);
    }
  }
  load_state(encoder, tensors, source.where);
}

}  // namespace minwm::models
