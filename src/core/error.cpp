#include "minwm/core/error.h"

#include <cstdio>
#include <new>

#include <c10/util/Exception.h>

namespace minwm {
namespace {

/// LibTorch appends where it was thrown and which operators led there: only the first line is ours
/// to show.
std::string first_line(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n\t");
  if (begin == std::string::npos) {
    return "unknown error";
  }
  const size_t end = text.find('\n', begin);
  return text.substr(begin, end == std::string::npos ? end : end - begin);
}

}  // namespace

Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {first_line(error.what()), error.exit_code()};
  } catch (const c10::Error& error) {
    return {first_line(error.what_without_backtrace()), kExitFailure};
  } catch (const std::bad_alloc&) {
    return {"out of memory", kExitFailure};
  } catch (const std::exception& error) {
    return {first_line(error.what()), kExitFailure};
  } catch (...) {
    return {"an exception that is not a std::exception", kExitFailure};
  }
}

int run_main(const char* program, int (*body)(int, char**), int argc, char** argv) {
  try {
    return body(argc, argv);
  } catch (...) {
    const Failure failure = current_failure();
    fmt::print(stderr, "{}: error: {}\n", program, failure.message);
    return failure.exit_code;
  }
}

}  // namespace minwm
