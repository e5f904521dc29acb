#pragma once
// umT5's tokenizer: SentencePiece's unigram model, from tokenizer.json or spiece.model.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "minwm/models/text/special_tokens.h"

namespace minwm::models {

class Charsmap;

/// A piece of the vocabulary that may be matched in text.
struct UnigramPiece {
  std::string text;
  double score = 0;  ///< logarithm of its probability
  int64_t id = 0;
};

/// What a file says of a model; UnigramTokenizer checks it.
struct UnigramModel {
  std::vector<UnigramPiece> pieces;  ///< in any order
  SpecialTokens special;
  int64_t unknown = 0;
  std::vector<int64_t> bytes;  ///< ids of <0x00> … <0xFF>; empty: no byte fallback
  std::string charsmap;        ///< SentencePiece's precompiled normalisation, or empty
  std::string where;           ///< the file, for errors
};

/// Text → ids: special tokens are split out; in every part between them characters are normalised,
/// spaces become "▁", one is put in front, and each word is cut into the pieces with the highest
/// sum of scores.
/// Source: spec encoders 2.2; golden kind encoders.unigram.tokens.
class UnigramTokenizer {
 public:
  explicit UnigramTokenizer(UnigramModel model);
  UnigramTokenizer(UnigramTokenizer&&) noexcept;
  UnigramTokenizer& operator=(UnigramTokenizer&&) noexcept;
  ~UnigramTokenizer();

  /// tokenizer.json is what upstream runs, byte fallback as the file says.
  /// @throws Error naming the file and what it has that is not known here.
  static UnigramTokenizer from_tokenizer_json(const std::filesystem::path& path);
  /// spiece.model: byte fallback if the model has pieces of bytes. The sentinels <extra_id_k> come
  /// from special_tokens_map.json beside it and count down behind the pieces.
  static UnigramTokenizer from_sentencepiece(const std::filesystem::path& path);
  /// A folder with tokenizer.json or else spiece.model, or one of the two files.
  static UnigramTokenizer open(const std::filesystem::path& path);

  /// Without "</s>" at the end; empty for empty text. The text is taken as it is (clean_text).
  /// May be called from several threads. @throws Error if the text is no UTF-8.
  std::vector<int64_t> ids(std::string_view text) const;

  int64_t pad() const { return pad_; }
  int64_t end() const { return end_; }  ///< "</s>"

 private:
  /// Pieces low … high - 1 of the sorted ones: those that agree with a text so far.
  struct Range {
    uint32_t low = 0, high = 0;
    /// Keeps those whose byte `length` is `byte`; returns how many.
    uint32_t narrow(const std::vector<UnigramPiece>& pieces, size_t length, unsigned char byte);
  };
  /// found(piece) for every piece that the text begins with, shortest first.
  template <class Found>
  void for_each_piece(std::string_view text, const Found& found) const;
  void append_part(std::string_view text, std::vector<int64_t>& result) const;
  void append_word(std::string_view word, std::vector<int64_t>& result) const;
  void append_unknown(std::string_view characters, std::vector<int64_t>& result) const;

  UnigramModel model_;
  std::unique_ptr<Charsmap> charsmap_;
  std::vector<Range> first_byte_;  ///< pieces by first byte
  double unknown_score_ = 0;
  int64_t pad_ = 0, end_ = 0;
};

}  // namespace minwm::models
