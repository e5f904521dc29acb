#include "sentencepiece_file.h"

#include <cstring>
#include <string_view>

#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::models {
namespace {

constexpr int kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

/// One field of a message: number, and its content by wire type.
struct Field {
  uint64_t number = 0, varint = 0;
  int wire = 0;
  std::string_view bytes;  ///< of kBytes, kFixed32 and kFixed64
};

/// Walks the fields of a message.
class Message {
 public:
  Message(std::string_view bytes, size_t start, const std::string& where)
      : bytes_(bytes), start_(start), where_(where) {}

  bool next(Field& field) {
    if (position_ == bytes_.size()) {
      return false;
    }
    const uint64_t key = varint();
    field = {};
    field.number = key >> 3;
    field.wire = static_cast<int>(key & 7);
    switch (field.wire) {
      case kVarint:
        field.varint = varint();
        break;
      case kFixed64:
        field.bytes = take(8);
        break;
      case kBytes:
        field.bytes = take(varint());
        break;
      case kFixed32:
        field.bytes = take(4);
        break;
      default:
        fail("{}: wire type {} at byte {} is no protobuf of SentencePiece", where_, field.wire,
             start_ + position_);
    }
    return true;
  }
  /// Where the bytes of a field of this message begin in the file.
  size_t place(const Field& field) const {
    return start_ + static_cast<size_t>(field.bytes.data() - bytes_.data());
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) {
        return value;
      }
    }
    fail("{}: a number at byte {} has no end", where_, start_ + position_);
  }
  std::string_view take(uint64_t count) {
    require(count <= bytes_.size() - position_,
            "{}: cut off or damaged: {} bytes at byte {} were expected, {} are there", where_,
            count, start_ + position_, bytes_.size() - position_);
    const std::string_view result = bytes_.substr(position_, count);
    position_ += count;
    return result;
  }

  std::string_view bytes_;
  size_t start_, position_ = 0;
  const std::string& where_;
};

SentencePiece read_piece(Message message, size_t index, const std::string& where) {
  SentencePiece piece;
  for (Field field; message.next(field);) {
    if (field.number == 1 && field.wire == kBytes) {
      piece.text = field.bytes;
    } else if (field.number == 2 && field.wire == kFixed32) {
      std::memcpy(&piece.score, field.bytes.data(), sizeof(piece.score));
    } else if (field.number == 3 && field.wire == kVarint) {
      require(field.varint >= 1 && field.varint <= 6, "{}: piece {} has type {}, not 1 to 6", where,
              index, field.varint);
      piece.type = static_cast<PieceType>(field.varint);
    }
  }
  require(!piece.text.empty(), "{}: piece {} has no text", where, index);
  return piece;
}

}  // namespace

SentencePieceFile read_sentencepiece(const std::filesystem::path& path) {
  const std::string where = path.string();
  const std::string bytes = read_file(path);
  SentencePieceFile file;
  Message message(bytes, 0, where);
  for (Field field; message.next(field);) {
    if (field.wire != kBytes) {
      continue;
    }
    Message inner(field.bytes, message.place(field), where);
    if (field.number == 1) {
      file.pieces.push_back(read_piece(inner, file.pieces.size(), where));
    } else if (field.number == 3) {
      for (Field part; inner.next(part);) {
        if (part.number == 2 && part.wire == kBytes) {
          file.charsmap = part.bytes;
        }
      }
    }
  }
  require(!file.pieces.empty(), "{}: no pieces: not a SentencePiece model", where);
  return file;
}

}  // namespace minwm::models
