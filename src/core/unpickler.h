#pragma once
// The safe part of pickle protocol 2, as torch.save writes it.

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "minwm/core/error.h"
#include "minwm/core/pt_reader.h"

namespace minwm {

/// A tensor storage that a pickle refers to.
struct StorageReference {
  std::string key;  ///< names the entry with its bytes
  at::ScalarType dtype{};
  int64_t numel = 0;
};

/// Gives the elements of a storage as a flat tensor [numel]; the same tensor for the same key.
using StorageLoader = std::function<at::Tensor(const StorageReference&)>;

/// Runs `program`. @throws Error starting with `file` and the byte of the program.
PtValue unpickle(const std::string& program, const std::string& file, const StorageLoader& load);

// --- The machine behind it: opcodes in unpickler.cpp, what a program may call in
// unpickler_calls.cpp.

namespace pickle {

inline constexpr int kDeepest = 64;  ///< levels of containers; state dicts have 3

enum class Action { kOrderedDict, kRebuildTensor, kRebuildParameter, kStorageType };

/// The names that a pickle may use, and all that they do.
struct Global {
  std::string_view name;
  Action action;
  at::ScalarType dtype = at::kFloat;  ///< of a storage type
};

using List = PtValue::List;

struct Tuple;

/// What stands on the stack or in the memo: a value, or one of the things that only programs see.
/// (Not a variant: GCC 12 then warns of uninitialised alternatives.)
struct Item {
  PtValue value = {};
  const Global* global = nullptr;
  std::shared_ptr<const StorageReference> storage = {};
  std::shared_ptr<const Tuple> tuple = {};
  bool mark = false;

  bool is_value() const { return !global && !storage && !tuple && !mark; }
};

/// Stays apart from lists until it becomes part of the result: arguments are tuples that hold
/// storages.
struct Tuple {
  std::vector<Item> items;
  int depth = 1;
  mutable std::shared_ptr<List> list;  ///< once it is part of the result
};

class Unpickler {
 public:
  Unpickler(const std::string& program, const std::string& file, const StorageLoader& load)
      : program_(program), file_(file), load_(load) {}
  ~Unpickler();
  Unpickler(const Unpickler&) = delete;
  Unpickler& operator=(const Unpickler&) = delete;
  PtValue run();

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: pickle byte {}: {}", file_, at_, fmt::format(format, std::forward<Args>(args)...));
  }

  // The program.
  std::string_view take(size_t count);
  std::string_view line();
  template <class T>
  T number() {  // little-endian
    T value{};
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  // The stack.
  void push(Item item) { stack_.push_back(std::move(item)); }
  void push_value(PtValue::Variant value) { push({.value = PtValue(std::move(value))}); }
  const Item& top() const;
  Item pop();
  std::vector<Item> pop_mark();
  template <class Container>
  Container& top_container(const char* name) const;

  // Values.
  PtValue to_value(const Item& item);
  std::shared_ptr<List> new_list() { return lists_.emplace_back(std::make_shared<List>()); }
  void push_dict() { push_value(dicts_.emplace_back(std::make_shared<PtDict>())); }
  void push_tuple(std::vector<Item> items);
  void push_tuple(size_t count);
  void set_items(const std::vector<Item>& keys_and_values);

  // Arguments of calls.
  const Tuple& tuple(const Item& item, const char* what) const;
  int64_t integer(const Item& item, const char* what) const;
  std::vector<int64_t> sizes(const Item& item, const char* what) const;

  bool step_constant(uint8_t opcode);
  bool step_container(uint8_t opcode);
  void step(uint8_t opcode);
  void put(uint32_t index) { memo_[index] = top(); }
  void get(uint32_t index);
  void global();
  void load_storage();
  void reduce();
  PtValue rebuild_tensor(const Tuple& arguments) const;
  int height(const PtValue& value, int depth);

  const std::string& program_;
  const std::string& file_;
  const StorageLoader& load_;
  size_t next_ = 0, at_ = 0, repeated_bytes_ = 0;
  bool done_ = false;
  std::vector<Item> stack_;
  std::unordered_map<uint32_t, Item> memo_;
  std::vector<std::shared_ptr<List>> lists_;
  std::vector<std::shared_ptr<PtDict>> dicts_;
  std::unordered_map<const void*, int> heights_;
};

}  // namespace pickle
}  // namespace minwm
