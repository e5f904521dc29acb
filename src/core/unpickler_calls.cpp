// What a pickle may name and call: storages, tensors, parameters and ordered dicts. Nothing else.

#include <algorithm>

#include <ATen/ATen.h>
#include <spdlog/fmt/ranges.h>

#include "unpickler.h"

namespace minwm::pickle {
namespace {

constexpr size_t kMostAxes = 64;  ///< of a tensor, LibTorch's limit

constexpr Global kGlobals[] = {{"collections.OrderedDict", Action::kOrderedDict},
                               {"torch._utils._rebuild_tensor_v2", Action::kRebuildTensor},
                               {"torch._utils._rebuild_parameter", Action::kRebuildParameter},
                               {"torch.DoubleStorage", Action::kStorageType, at::kDouble},
                               {"torch.FloatStorage", Action::kStorageType, at::kFloat},
                               {"torch.HalfStorage", Action::kStorageType, at::kHalf},
                               {"torch.BFloat16Storage", Action::kStorageType, at::kBFloat16},
                               {"torch.LongStorage", Action::kStorageType, at::kLong},
                               {"torch.IntStorage", Action::kStorageType, at::kInt},
                               {"torch.ShortStorage", Action::kStorageType, at::kShort},
                               {"torch.CharStorage", Action::kStorageType, at::kChar},
                               {"torch.ByteStorage", Action::kStorageType, at::kByte},
                               {"torch.BoolStorage", Action::kStorageType, at::kBool}};

}  // namespace

const Tuple& Unpickler::tuple(const Item& item, const char* what) const {
  if (item.tuple == nullptr) {
    refuse("{} is not a tuple", what);
  }
  return *item.tuple;
}

int64_t Unpickler::integer(const Item& item, const char* what) const {
  const auto* number = std::get_if<int64_t>(&item.value.variant());
  if (number == nullptr || *number < 0) {
    refuse("{} is not an integer of 0 or more", what);
  }
  return *number;
}

std::vector<int64_t> Unpickler::sizes(const Item& item, const char* what) const {
  std::vector<int64_t> out;
  for (const Item& size : tuple(item, what).items) {
    out.push_back(integer(size, what));
  }
  if (out.size() > kMostAxes) {
    refuse("{} has {} axes", what, out.size());
  }
  return out;
}

void Unpickler::global() {
  std::string name(line());
  name += '.';
  name += line();
  for (const Global& known : kGlobals) {
    if (known.name == name) {
      return push({.global = &known});
    }
  }
  refuse(
      "refused: the file names '{}'; only tensors, dicts, lists, tuples, numbers and strings "
      "are read",
      name);
}

void Unpickler::load_storage() {
  const Item id = pop();
  const auto& items = tuple(id, "a persistent id").items;
  const auto text = [&](size_t i) {
    return i < items.size() && items[i].value.is_string() ? items[i].value.string("") : "";
  };
  const Global* type = items.size() == 5 ? items[1].global : nullptr;
  if (text(0) != "storage" || type == nullptr || type->action != Action::kStorageType ||
      text(2).empty()) {
    refuse("a persistent id is not ('storage', type, key, device, size)");
  }
  const int64_t numel = integer(items[4], "a storage's size");
  push({.storage =
            std::make_shared<StorageReference>(StorageReference{text(2), type->dtype, numel})});
}

void Unpickler::reduce() {
  const Item arguments_item = pop(), callable = pop();
  const Tuple& arguments = tuple(arguments_item, "the arguments of a call");
  const Global* function = callable.global;
  if (function == nullptr) {
    refuse("a call of something that is not a known function");
  }
  switch (function->action) {
    case Action::kOrderedDict:
      if (!arguments.items.empty()) {
        refuse("an OrderedDict with arguments");
      }
      return push_dict();
    case Action::kRebuildTensor:
      return push({.value = rebuild_tensor(arguments)});
    case Action::kRebuildParameter: {
      if (arguments.items.empty() || !arguments.items[0].value.is_tensor()) {
        refuse("a parameter without a tensor");
      }
      return push(arguments.items[0]);
    }
    case Action::kStorageType:
      refuse("a call of {}", function->name);
  }
}

/// (storage, offset, sizes, strides, requires_grad, hooks[, metadata])
PtValue Unpickler::rebuild_tensor(const Tuple& arguments) const {
  const auto& items = arguments.items;
  const bool known = items.size() == 6 || items.size() == 7;
  const StorageReference* reference = known ? items[0].storage.get() : nullptr;
  if (reference == nullptr) {
    refuse("a tensor without a storage");
  }
  const int64_t offset = integer(items[1], "a tensor's offset");
  const auto shape = sizes(items[2], "a tensor's shape");
  const auto strides = sizes(items[3], "a tensor's strides");
  if (shape.size() != strides.size()) {
    refuse("a tensor with {} sizes and {} strides", shape.size(), strides.size());
  }
  int64_t last = offset, count = 1, step = 0;
  bool overflow = false, empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    empty |= shape[i] == 0;
    overflow |= __builtin_mul_overflow(count, shape[i], &count);
    overflow |= __builtin_mul_overflow(shape[i] - 1, strides[i], &step) ||
                __builtin_add_overflow(last, std::max<int64_t>(step, 0), &last);
  }
  if (overflow || (empty ? offset > reference->numel : last >= reference->numel)) {
    refuse("a tensor of shape [{}] leaves its storage of {} elements", fmt::join(shape, ", "),
           reference->numel);
  }
  const at::Tensor storage = load_(*reference);
  return PtValue(storage.as_strided(shape, strides, offset));
}

}  // namespace minwm::pickle
