#pragma once
// Qwen2.5's tokenizer: byte-level BPE.

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "minwm/models/text/special_tokens.h"

namespace minwm::models {

/// Text → ids: added tokens are split out; every part between them is normalised (NFC), cut into
/// words by Qwen2's pattern, and each word's bytes are merged pair by pair, lowest rank first.
/// Source: spec encoders 3.5; golden kind encoders.qwen2_bpe.tokens.
class ByteBpeTokenizer {
 public:
  /// A folder with vocab.json and merges.txt, or else tokenizer.json. Added tokens come from
  /// added_tokens.json (token → id, or → {"id": …}), tokenizer_config.json's added_tokens_decoder
  /// or tokenizer.json, the first of them that is there.
  /// @throws Error naming the file and what is wrong or missing.
  static ByteBpeTokenizer open(const std::filesystem::path& folder);
  static ByteBpeTokenizer from_tokenizer_json(const std::filesystem::path& path);

  /// Empty for empty text; no template, nothing at the ends. May be called from several threads.
  /// @throws Error if the text is no UTF-8.
  std::vector<int64_t> ids(std::string_view text) const;

  /// The id of an added token. @throws Error if there is none of that name.
  int64_t added_token(const std::string& token) const;

 private:
  /// The words that merges.txt and vocab.json speak of.
  using Vocabulary = std::unordered_map<std::string, int32_t>;
  struct Merge {
    int32_t rank, id;
  };

  ByteBpeTokenizer() = default;
  void set_vocabulary(const Vocabulary& vocabulary, const std::string& where);
  void add_merge(const Vocabulary& vocabulary, std::string_view left, std::string_view right,
                 const std::string& where);
  void append_part(std::string_view text, std::vector<int64_t>& result) const;
  void append_word(std::string_view bytes, std::vector<int64_t>& result) const;

  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<uint64_t, Merge> merges_;  ///< by the ids of left and right
  SpecialTokens added_;
  std::string where_;
};

}  // namespace minwm::models
