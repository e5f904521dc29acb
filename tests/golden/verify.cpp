// minwm-verify FILE...: replays golden cases against our code. One line per case:
//   ok|FAIL name kind max_abs max_rel
// and, below a FAIL, why. Exit 0 only if all pass.

#include <filesystem>

#include <spdlog/spdlog.h>

#include "kinds.h"
#include "minwm/core/error.h"

namespace minwm::golden {
namespace {

void print_case(bool ok, const std::string& path, const std::string& kind, double max_abs,
                double max_rel, const std::vector<std::string>& reasons) {
  fmt::print("{} {} {} {:.3e} {:.3e}\n", ok ? "ok" : "FAIL",
             std::filesystem::path(path).stem().string(), kind, max_abs, max_rel);
  for (const std::string& reason : reasons) {
    fmt::print("     {}\n", reason);
  }
  std::fflush(stdout);
}

bool verify(const std::string& path) {
  std::string kind = "?";
  try {
    const Case c(path);
    kind = c.kind;
    const Replay replay = find_kind(kind);
    require(replay != nullptr, "no replay for kind '{}'", kind);
    Report report(c);
    try {
      replay(c, report);
    } catch (...) {
      report.check("replay", false, current_failure().message);
    }
    for (const std::string& name : c.unread_results()) {
      report.check(name, false, "nothing of ours was compared with it");
    }
    auto reasons = report.failures();
    if (report.compared() == 0) {
      reasons.emplace_back("nothing was compared");
    }
    print_case(report.ok(), path, kind, report.max_abs(), report.max_rel(), reasons);
    return report.ok();
  } catch (...) {
    print_case(false, path, kind, 0, 0, {current_failure().message});
    return false;
  }
}

int run(int argc, char** argv) {
  require(argc > 1, "usage: minwm-verify FILE...");
  spdlog::set_level(spdlog::level::err);  // warnings about odd inputs are part of the cases
  // Torch's generator is no part of any case; a replay that draws from it must do so repeatably.
  torch::manual_seed(0);
  int failed = 0;
  for (int i = 1; i < argc; ++i) {
    failed += verify(argv[i]) ? 0 : 1;
  }
  if (failed > 0) {
    fmt::print(stderr, "minwm-verify: {} of {} cases failed\n", failed, argc - 1);
  }
  return failed == 0 ? kExitDone : 1;
}

}  // namespace
}  // namespace minwm::golden

int main(int argc, char** argv) {
  return minwm::run_main("minwm-verify", minwm::golden::run, argc, argv);
}
