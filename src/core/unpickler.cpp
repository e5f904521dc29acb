#include "unpickler.h"

#include <algorithm>
#include <bit>

namespace minwm {
namespace pickle {
namespace {

/// Of strings that one program repeats: a small hostile file must not fill the memory.
constexpr size_t kMostRepeatedBytes = size_t{256} << 20;

}  // namespace

Unpickler::~Unpickler() {
  if (!done_) {
    // Containers that hold one another would never be freed, and a long chain of them would be
    // freed one inside the other.
    for (const auto& list : lists_) {
      list->clear();
    }
    for (const auto& dict : dicts_) {
      *dict = PtDict();
    }
  }
}

PtValue Unpickler::run() {
  while (true) {
    at_ = next_;
    const auto opcode = static_cast<uint8_t>(take(1)[0]);
    if (opcode == '.') {
      break;
    }
    step(opcode);
  }
  PtValue result = to_value(pop());
  height(result, 0);
  done_ = true;
  return result;
}

std::string_view Unpickler::take(size_t count) {
  if (count > program_.size() - next_) {
    refuse("truncated");
  }
  const std::string_view bytes = std::string_view(program_).substr(next_, count);
  next_ += count;
  return bytes;
}

std::string_view Unpickler::line() {
  const size_t end = program_.find('\n', next_);
  if (end == program_.npos) {
    refuse("truncated");
  }
  const std::string_view text = take(end - next_);
  take(1);
  return text;
}

const Item& Unpickler::top() const {
  if (stack_.empty()) {
    refuse("nothing is on the stack");
  }
  return stack_.back();
}

Item Unpickler::pop() {
  Item item = top();
  stack_.pop_back();
  return item;
}

/// Everything above the last mark, which goes too.
std::vector<Item> Unpickler::pop_mark() {
  const auto mark =
      std::find_if(stack_.rbegin(), stack_.rend(), [](const Item& item) { return item.mark; });
  if (mark == stack_.rend()) {
    refuse("no mark is on the stack");
  }
  std::vector<Item> items(mark.base(), stack_.end());
  stack_.erase(std::prev(mark.base()), stack_.end());
  return items;
}

template <class Container>
Container& Unpickler::top_container(const char* name) const {
  const Item& item = top();
  if (const auto* shared = std::get_if<std::shared_ptr<Container>>(&item.value.variant())) {
    return **shared;
  }
  refuse("expected a {}", name);
}

PtValue Unpickler::to_value(const Item& item) {
  if (item.is_value()) {
    return item.value;
  }
  if (item.tuple == nullptr) {
    refuse("expected a value");
  }
  if (item.tuple->list == nullptr) {
    const auto list = new_list();
    for (const Item& element : item.tuple->items) {
      list->push_back(to_value(element));
    }
    item.tuple->list = list;
  }
  return PtValue(item.tuple->list);
}

void Unpickler::push_tuple(std::vector<Item> items) {
  auto made = std::make_shared<Tuple>();
  for (const Item& item : items) {
    if (item.tuple) {
      made->depth = std::max(made->depth, item.tuple->depth + 1);
    }
  }
  if (made->depth > kDeepest) {
    refuse("tuples nested more than {} deep", kDeepest);
  }
  made->items = std::move(items);
  push({.tuple = std::move(made)});
}

void Unpickler::push_tuple(size_t count) {
  std::vector<Item> items(count);
  for (size_t i = count; i-- > 0;) {
    items[i] = pop();
  }
  push_tuple(std::move(items));
}

void Unpickler::set_items(const std::vector<Item>& keys_and_values) {
  auto& dict = top_container<PtDict>("dict");
  if (keys_and_values.size() % 2 != 0) {
    refuse("a dict key without a value");
  }
  for (size_t i = 0; i < keys_and_values.size(); i += 2) {
    const PtValue key = to_value(keys_and_values[i]);
    PtValue value = to_value(keys_and_values[i + 1]);
    if (const auto* text = std::get_if<std::string>(&key.variant())) {
      dict.set(*text, std::move(value));
    } else if (const auto* number = std::get_if<int64_t>(&key.variant())) {
      dict.set(*number, std::move(value));
    } else {
      refuse("a dict key is {}, expected a string or an integer", key.type_name());
    }
  }
}

bool Unpickler::step_constant(uint8_t opcode) {
  switch (opcode) {
    case 'N':
      push_value(std::monostate());
      return true;
    case 0x88:
    case 0x89:
      push_value(opcode == 0x88);
      return true;
    case 'K':
      push_value(int64_t{number<uint8_t>()});
      return true;
    case 'M':
      push_value(int64_t{number<uint16_t>()});
      return true;
    case 'J':
      push_value(int64_t{number<int32_t>()});
      return true;
    case 0x8a: {  // two's complement of any length
      const std::string_view bytes = take(number<uint8_t>());
      if (bytes.size() > sizeof(int64_t)) {
        refuse("an integer of {} bytes does not fit 64 bits", bytes.size());
      }
      int64_t value = !bytes.empty() && static_cast<int8_t>(bytes.back()) < 0 ? -1 : 0;
      std::memcpy(&value, bytes.data(), bytes.size());
      push_value(value);
      return true;
    }
    case 'G':  // big-endian
      push_value(std::bit_cast<double>(__builtin_bswap64(number<uint64_t>())));
      return true;
    case 'X':
      push_value(std::string(take(number<uint32_t>())));
      return true;
    default:
      return false;
  }
}

bool Unpickler::step_container(uint8_t opcode) {
  switch (opcode) {
    case '(':
      push({.mark = true});
      return true;
    case ')':
      push_tuple(std::vector<Item>());
      return true;
    case 0x85:
    case 0x86:
    case 0x87:
      push_tuple(size_t{opcode} - 0x84);
      return true;
    case 't':
      push_tuple(pop_mark());
      return true;
    case '}':
      push_dict();
      return true;
    case 's': {
      const Item value = pop(), key = pop();
      set_items({key, value});
      return true;
    }
    case 'u':
      set_items(pop_mark());
      return true;
    case ']':
      push_value(new_list());
      return true;
    case 'a':
    case 'e': {
      std::vector<Item> items = opcode == 'a' ? std::vector<Item>{pop()} : pop_mark();
      auto& list = top_container<List>("list");
      for (const Item& item : items) {
        list.push_back(to_value(item));
      }
      return true;
    }
    default:
      return false;
  }
}

void Unpickler::step(uint8_t opcode) {
  if (step_constant(opcode) || step_container(opcode)) {
    return;
  }
  switch (opcode) {
    case 0x80:
      if (const auto protocol = number<uint8_t>(); protocol != 2) {
        refuse("pickle protocol {}, expected 2 as torch.save writes it", protocol);
      }
      return;
    case 'q':
      return put(number<uint8_t>());
    case 'r':
      return put(number<uint32_t>());
    case 'h':
      return get(number<uint8_t>());
    case 'j':
      return get(number<uint32_t>());
    case 'c':
      return global();
    case 'Q':
      return load_storage();
    case 'R':
      return reduce();
    case 'b':  // attributes of an OrderedDict: a state dict's version numbers, not needed
      pop();
      top_container<PtDict>("dict");
      return;
    default:
      refuse(
          "opcode 0x{:02x} is not used by files of tensors, dicts, lists, tuples, numbers and "
          "strings",
          opcode);
  }
}

void Unpickler::get(uint32_t index) {
  const auto found = memo_.find(index);
  if (found == memo_.end()) {
    refuse("nothing was stored as {}", index);
  }
  if (const PtValue& value = found->second.value; value.is_string()) {
    repeated_bytes_ += value.string("").size();
    if (repeated_bytes_ > kMostRepeatedBytes) {
      refuse("more than {} bytes of repeated strings", kMostRepeatedBytes);
    }
  }
  push(found->second);
}

/// Levels of containers below `value`. Each is measured once, however often it is shared.
int Unpickler::height(const PtValue& value, int depth) {
  const void* container = nullptr;
  std::vector<const PtValue*> children;
  if (value.is_list()) {
    const List& list = value.list("");
    container = &list;
    for (const PtValue& child : list) {
      children.push_back(&child);
    }
  } else if (value.is_dict()) {
    const PtDict& dict = value.dict("");
    container = &dict;
    for (const auto& [key, child] : dict.items) {
      children.push_back(&child);
    }
  } else {
    return 0;
  }
  if (const auto known = heights_.find(container); known != heights_.end()) {
    if (known->second < 0 || known->second + depth > kDeepest) {
      refuse("a container holds itself, or the nesting is more than {} deep", kDeepest);
    }
    return known->second;
  }
  if (depth >= kDeepest) {
    refuse("lists or dicts nested more than {} deep", kDeepest);
  }
  heights_[container] = -1;  // being measured: to meet it again is a cycle
  int levels = 0;
  for (const PtValue* child : children) {
    levels = std::max(levels, height(*child, depth + 1));
  }
  return heights_[container] = levels + 1;
}

}  // namespace pickle

PtValue unpickle(const std::string& program, const std::string& file, const StorageLoader& load) {
  return pickle::Unpickler(program, file, load).run();
}

}  // namespace minwm
