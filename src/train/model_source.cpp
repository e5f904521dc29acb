#include "minwm/train/model_source.h"

#include <numeric>

namespace minwm::train {

models::ParameterSource model_source(std::shared_ptr<const Checkpoint> checkpoint,
                                     bool prefer_ema) {
  std::string prefix = "model/param/";
  for (const auto& name : checkpoint->names()) {
    if (prefer_ema && name.starts_with("model/ema/")) {
      prefix = "model/ema/";
      break;
    }
  }
  models::ParameterSource source;
  source.where = (checkpoint->path() / "state.h5").string();
  for (const auto& name : checkpoint->names()) {
    if (name.starts_with(prefix)) {
      source.shapes[name.substr(prefix.size())] = checkpoint->shape(name);
    }
  }
  source.read = [checkpoint, prefix, shapes = source.shapes](const std::string& name, int64_t begin,
                                                             int64_t count) {
    const auto& shape = shapes.at(name);
    const int64_t whole =
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    return begin == 0 && count == whole ? checkpoint->read(prefix + name).view(-1)
                                        : checkpoint->read_range(prefix + name, begin, count);
  };
  return source;
}

}  // namespace minwm::train
