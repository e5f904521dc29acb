#pragma once
// Reads PyTorch files (`torch.save`, zip format) without Python and without running anything.
//
// A .pt file is a zip of uncompressed entries: a pickle program that builds the object, and one
// entry per tensor storage. The program is interpreted by a reader that knows tensors, dicts,
// lists, tuples, numbers, strings, bools and None; whatever else a pickle may name (any function or
// class) is refused by name, so a hostile file can only be an Error.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm {

struct PtDict;

/// A value of a .pt file. Copies are cheap: lists, dicts and tensors are shared.
class PtValue {
 public:
  using List = std::vector<PtValue>;  ///< a list or a tuple
  using Variant = std::variant<std::monostate, bool, int64_t, double, std::string, at::Tensor,
                               std::shared_ptr<List>, std::shared_ptr<PtDict>>;

  PtValue() = default;
  explicit PtValue(Variant value) : value_(std::move(value)) {}

  bool is_none() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_tensor() const { return std::holds_alternative<at::Tensor>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<List>>(value_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<PtDict>>(value_); }

  /// What it is, in words: "a tensor", "None", "an integer".
  const char* type_name() const;

  // Each throws Error "WHERE is a dict, expected a tensor" if it is something else.
  /// A view of its storage with the strides of the file: call contiguous() where that matters.
  const at::Tensor& tensor(std::string_view where) const;
  const std::string& string(std::string_view where) const;
  int64_t integer(std::string_view where) const;
  /// A float, or an integer as a float.
  double number(std::string_view where) const;
  bool boolean(std::string_view where) const;
  const List& list(std::string_view where) const;
  const PtDict& dict(std::string_view where) const;

  const Variant& variant() const { return value_; }

 private:
  Variant value_;
};

/// A dict in the file's order, keys are strings or integers.
struct PtDict {
  using Key = std::variant<int64_t, std::string>;
  std::vector<std::pair<Key, PtValue>> items;
  std::map<Key, size_t> index;  ///< where a key stands in `items`

  /// Adds or replaces, as Python does: a key keeps its first place.
  void set(const Key& key, PtValue value);
  /// nullptr if absent.
  const PtValue* find(const Key& key) const;
  /// @throws Error "WHERE has no 'key'".
  const PtValue& at(const std::string& key, std::string_view where) const;
};

/// Reads a whole .pt or .pth file. Tensors own their memory (those that shared a storage in the
/// file share it here), on the CPU. Dtypes: float64, float32, float16, bfloat16, int64, int32,
/// int16, int8, uint8, bool.
/// @throws Error naming the file and what is wrong: unreadable, truncated, not a zip file
/// (PyTorch's format before 1.6), compressed, encrypted or overlapping entries, a global outside
/// the list above, an opcode outside pickle protocol 2's safe part, a tensor outside its storage, a
/// cycle, more than 64 levels.
PtValue read_pt(const std::filesystem::path& path);

}  // namespace minwm
