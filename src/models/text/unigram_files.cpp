// The two files of a unigram tokenizer.

#include <algorithm>
#include <charconv>

#include "charsmap.h"
#include "json_file.h"
#include "minwm/models/text/unigram.h"
#include "sentencepiece_file.h"

namespace minwm::models {
namespace {

using Json = nlohmann::json;

/// 0 … 255 of "<0xNN>", else -1.
int byte_of_piece(const std::string& piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') {
    return -1;
  }
  int value = 0;
  const char* const end = piece.data() + 5;
  return std::from_chars(piece.data() + 3, end, value, 16).ptr == end ? value : -1;
}

/// Ids of the 256 pieces of bytes, or empty if there are none.
class BytePieces {
 public:
  /// Whether the piece is one.
  bool take(const std::string& piece, int64_t id) {
    const int byte = byte_of_piece(piece);
    if (byte >= 0) {
      ids_[static_cast<size_t>(byte)] = id;
    }
    return byte >= 0;
  }
  bool any() const {
    return std::any_of(ids_.begin(), ids_.end(), [](int64_t id) { return id >= 0; });
  }
  std::vector<int64_t> all(const std::string& where) const {
    for (size_t byte = 0; byte < ids_.size(); ++byte) {
      require(ids_[byte] >= 0, "{}: byte fallback, but no piece <0x{:02X}>", where, byte);
    }
    return ids_;
  }

 private:
  std::vector<int64_t> ids_ = std::vector<int64_t>(256, -1);
};

/// The charsmap of a normaliser; spaces at the end and runs of them are mark_spaces' work, any
/// other step is not known.
void read_normaliser(const Json& json, UnigramModel& model) {
  if (json.is_null()) {
    return;
  }
  const auto type = json.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const auto& part : json.at("normalizers")) {
      read_normaliser(part, model);
    }
  } else if (type == "Precompiled") {
    model.charsmap = decode_base64(json.at("precompiled_charsmap").get<std::string>(), model.where);
  } else if (type == "Strip") {
    require(!json.at("strip_left").get<bool>() && json.at("strip_right").get<bool>(),
            "{}: normaliser Strip on the right alone was expected", model.where);
  } else {
    require(type == "Replace" && json.at("pattern").contains("Regex") &&
                json.at("pattern").at("Regex") == " {2,}" && json.at("content") == "\u2581",
            "{}: normaliser {} is not one of umT5's", model.where, json.dump());
  }
}

void check_pre_tokenizer(const Json& json, const std::string& where) {
  const auto type = json.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const auto& part : json.at("pretokenizers")) {
      check_pre_tokenizer(part, where);
    }
    return;
  }
  // Older files say add_prefix_space instead of prepend_scheme.
  const bool metaspace =
      type == "Metaspace" && json.at("replacement") == "\u2581" &&
      (json.contains("prepend_scheme") ? json.at("prepend_scheme") == "always"
                                       : json.value("add_prefix_space", false)) &&
      json.value("split", true);
  require(metaspace || type == "WhitespaceSplit", "{}: pre-tokenizer {} is not one of umT5's",
          where, json.dump());
}

void read_added_tokens(const Json& json, UnigramModel& model) {
  for (const auto& token : json) {
    const auto text = token.at("content").get<std::string>();
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
      require(!token.value(flag, false), "{}: added token '{}' is {}, which umT5's are not",
              model.where, text, flag);
    }
    model.special.add(text, token.at("id").get<int64_t>(), model.where);
  }
}

/// The sentinels count down behind the pieces: <extra_id_0> is the last id of all.
void read_sentinels(const std::filesystem::path& path, size_t pieces, UnigramModel& model) {
  if (!std::filesystem::exists(path)) {
    return;
  }
  with_json_file(path, [&](const Json& json) {
    const auto tokens = json.value("additional_special_tokens", Json::array());
    for (const auto& token : tokens) {
      const auto text =
          token.is_object() ? token.at("content").get<std::string>() : token.get<std::string>();
      size_t number = 0;
      const std::string_view prefix = "<extra_id_";
      const char* const end = text.data() + text.size() - 1;
      require(text.starts_with(prefix) && text.back() == '>' &&
                  std::from_chars(text.data() + prefix.size(), end, number).ptr == end &&
                  number < tokens.size(),
              "{}: '{}' is not one of {} sentinels <extra_id_k>", path.string(), text,
              tokens.size());
      model.special.add(text, static_cast<int64_t>(pieces + tokens.size() - 1 - number),
                        path.string());
    }
    return 0;
  });
}

}  // namespace

UnigramTokenizer UnigramTokenizer::from_tokenizer_json(const std::filesystem::path& path) {
  UnigramModel model;
  model.where = path.string();
  with_json_file(path, [&](const Json& json) {
    const Json& inner = json.at("model");
    require(inner.value("type", "") == "Unigram", "{}: model type '{}', Unigram was expected",
            model.where, inner.value("type", ""));
    read_normaliser(json.at("normalizer"), model);
    check_pre_tokenizer(json.at("pre_tokenizer"), model.where);
    read_added_tokens(json.at("added_tokens"), model);
    model.unknown = inner.at("unk_id").get<int64_t>();
    BytePieces bytes;
    int64_t id = 0;
    for (const auto& entry : inner.at("vocab")) {
      auto text = entry.at(0).get<std::string>();
      if (!model.special.ids().contains(text) && !bytes.take(text, id)) {
        model.pieces.push_back({std::move(text), entry.at(1).get<double>(), id});
      }
      ++id;
    }
    require(model.unknown >= 0 && model.unknown < id, "{}: unk_id {} of {} pieces", model.where,
            model.unknown, id);
    if (inner.value("byte_fallback", false)) {
      model.bytes = bytes.all(model.where);
    }
    return 0;
  });
  return UnigramTokenizer(std::move(model));
}

UnigramTokenizer UnigramTokenizer::from_sentencepiece(const std::filesystem::path& path) {
  SentencePieceFile file = read_sentencepiece(path);
  UnigramModel model;
  model.unknown = -1;
  model.charsmap = std::move(file.charsmap);
  model.where = path.string();
  BytePieces bytes;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    SentencePiece& piece = file.pieces[i];
    const auto id = static_cast<int64_t>(i);
    model.unknown = piece.type == PieceType::kUnknown ? id : model.unknown;
    if (piece.type == PieceType::kNormal) {
      model.pieces.push_back({std::move(piece.text), piece.score, id});
    } else if (piece.type == PieceType::kByte) {
      require(bytes.take(piece.text, id), "{}: piece {} '{}' is of type byte, but not <0xNN>",
              model.where, i, piece.text);
    } else if (piece.type != PieceType::kUnused) {
      model.special.add(piece.text, id, model.where);
    }
  }
  require(model.unknown >= 0, "{}: no piece for what is unknown", model.where);
  if (bytes.any()) {
    model.bytes = bytes.all(model.where);
  }
  read_sentinels(path.parent_path() / "special_tokens_map.json", file.pieces.size(), model);
  return UnigramTokenizer(std::move(model));
}

UnigramTokenizer UnigramTokenizer::open(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    return path.extension() == ".model" ? from_sentencepiece(path) : from_tokenizer_json(path);
  }
  if (std::filesystem::exists(path / "tokenizer.json")) {
    return from_tokenizer_json(path / "tokenizer.json");
  }
  require(std::filesystem::exists(path / "spiece.model"),
          "{}: neither tokenizer.json nor spiece.model is there", path.string());
  return from_sentencepiece(path / "spiece.model");
}

}  // namespace minwm::models
