#pragma once
// HunyuanVideo-1.5's encoder of text that is to be drawn: byT5-small with the weights of
// Glyph-SDXL-v2 and tokens for colours and fonts.

#include "minwm/models/text/t5_encoder.h"

namespace minwm::models {

constexpr int64_t kByt5Length = 256;                    ///< tokens of a prompt, padded
constexpr int64_t kByt5Colors = 138, kByt5Fonts = 988;  ///< of Glyph-SDXL-v2
constexpr int64_t kByt5Tokens = 384;                    ///< bytes and special tokens before them

/// byT5-small under Hugging Face names: 219,314,944 values with the published counts.
T5Config byt5_small(int64_t colors = kByt5Colors, int64_t fonts = kByt5Fonts);

/// The encoder in a Glyph-SDXL-v2 checkpoint (names under "module.text_tower.encoder."; also
/// without the wrapper's "module."), all else left out. A source without such names is taken as the
/// encoder itself.
ParameterSource byt5_source(const ParameterSource& source);

/// As the DiT takes them.
struct GlyphStates {
  at::Tensor states;  ///< [B, L, E], rows past a text are zero
  at::Tensor mask;    ///< [B, L] int64
};

/// Runs every text at its true length; a row without tokens (no quoted text) is not run and stays
/// zero. ids, mask [B, L] int64.
/// Source: spec encoders 4; golden kind encoders.byt5.forward.
GlyphStates encode_glyphs(const T5Encoder& encoder, const at::Tensor& ids, const at::Tensor& mask);

}  // namespace minwm::models
