#pragma once
// A SentencePiece model (spiece.model): a protobuf of which three fields are read.

#include <filesystem>
#include <string>
#include <vector>

namespace minwm::models {

enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

struct SentencePieceFile {
  std::vector<SentencePiece> pieces;  ///< their place is their id
  std::string charsmap;               ///< empty: text is not normalised
};

/// @throws Error naming the file, the byte and what is wrong there.
SentencePieceFile read_sentencepiece(const std::filesystem::path& path);

}  // namespace minwm::models
