#pragma once
// What codecs share whose decoder is one network with a history: the whole is a stream in one part.

#include <memory>

#include "minwm/models/codec/causal_conv.h"
#include "minwm/models/codec/codec.h"

namespace minwm::models {

/// @tparam State  a DecodeState with a FeatureHistory `history`, of this codec alone.
template <class State>
class StreamedCodec : public Codec {
 public:
  at::Tensor decode(const at::Tensor& latents) override {
    FeatureHistory history;
    return decode_next(latents, history);
  }
  std::unique_ptr<DecodeState> make_decode_state() override { return std::make_unique<State>(); }
  at::Tensor decode_stream(const at::Tensor& latents, DecodeState& state) override {
    auto* const own = dynamic_cast<State*>(&state);
    TORCH_INTERNAL_ASSERT(own != nullptr, "a decode state of another codec");
    return decode_next(latents, own->history);
  }

 private:
  /// The pixels of the latents that follow those in `history`.
  virtual at::Tensor decode_next(const at::Tensor& latents, FeatureHistory& history) = 0;
};

}  // namespace minwm::models
