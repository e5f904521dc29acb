#include "minwm/train/model_source.h"

namespace minwm::train {

models::ParameterSource model_source(std::shared_ptr<const Checkpoint> checkpoint,
                                     bool prefer_ema) {
  const std::string prefix = checkpoint->weights_group(prefer_ema);
  models::ParameterSource source;
  source.where = (checkpoint->path() / "state.h5").string();
  for (const auto& name : checkpoint->names()) {
    if (name.starts_with(prefix)) {
      source.shapes[name.substr(prefix.size())] = checkpoint->shape(name);
    }
  }
  source.read = [checkpoint, prefix, shapes = source.shapes](const std::string& name, int64_t begin,
                                                             int64_t count) {
    const int64_t whole = c10::multiply_integers(shapes.at(name));
    return begin == 0 && count == whole ? checkpoint->read(prefix + name).view(-1)
                                        : checkpoint->read_range(prefix + name, begin, count);
  };
  return source;
}

}  // namespace minwm::train
