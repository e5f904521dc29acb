#pragma once

#include <string>

namespace minwm::eval {

/// Text made safe inside HTML and attribute values.
std::string escape_html(const std::string& text);

}  // namespace minwm::eval
