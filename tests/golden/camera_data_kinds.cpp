// Readers of published data sets and their sampler. Spec data-camera-eval 10.3 … 10.5, 16.

#include <algorithm>
#include <filesystem>

#include "camera_case.h"
#include "minwm/core/files.h"
#include "minwm/data/upstream_hy.h"
#include "minwm/data/upstream_sampler.h"
#include "minwm/data/upstream_wan.h"

namespace minwm::golden {
namespace {

namespace fs = std::filesystem;

void replay_sampler(const Case& c, Report& report) {
  const auto& cases = c.config.at("cases");
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string at = std::to_string(i) + "/";
    data::UpstreamSampler sampler;
    sampler.samples = cases[i].at("n").get<int64_t>();
    sampler.batch = cases[i].at("batch").get<int64_t>();
    sampler.ranks = cases[i].at("world").get<int64_t>();
    sampler.sequence_parallel = cases[i].at("sp").get<int64_t>();
    sampler.drop_last = cases[i].at("drop_last").get<bool>();
    sampler.drop_first = cases[i].at("drop_first").get<bool>();
    sampler.seed = cases[i].at("seed").get<uint64_t>();
    report.equal(at + "randperm",
                 at::tensor(data::upstream_permutation(sampler.samples, sampler.seed), at::kLong),
                 c.in(at + "randperm"));
    for (int64_t rank = 0; rank < sampler.ranks; ++rank) {
      const std::string name = at + "rank" + std::to_string(rank);
      report.equal(name, at::tensor(data::upstream_order(sampler, rank), at::kLong), c.out(name));
    }
  }
}

/// The data set `config.root` names: beside the folder of the golden cases (tests/data), in the
/// `data` folder there (the shared material), or under $MINWM_DATA_ROOT.
fs::path find_root(const Case& c) {
  const auto name = c.config.at("root").get<std::string>();
  const fs::path above = fs::absolute(c.path).parent_path().parent_path().parent_path();
  for (const fs::path& folder : {above, above / "data", data_root(), data_root() / "data",
                                 fs::path(MINWM_SHARED_DATA) / "data"}) {
    if (fs::is_directory(folder / name)) {
      return folder / name;
    }
  }
  fail("the data set '{}' is neither in {} nor in $MINWM_DATA_ROOT", name, above.string());
}

/// How many samples the case has results for: the largest index under `out/LINE/`, plus 1.
int64_t sample_count(const Case& c, const std::string& line) {
  int64_t count = 0;
  for (const std::string& name : c.under("out/" + line + "/")) {
    if (name[0] >= '0' && name[0] <= '9') {
      count = std::max<int64_t>(count, std::stoll(name) + 1);
    }
  }
  return count;
}

void compare_wan(const Case& c, Report& report, const std::string& at, const char* key,
                 const at::Tensor& latents, const data::WanSample& sample) {
  report.compare(at + key, latents, c.out(at + key));
  report.compare(at + "viewmats", sample.world_to_camera, c.out(at + "viewmats"));
  report.compare(at + "Ks", sample.intrinsics, c.out(at + "Ks"));
}

void replay_wan(const Case& c, Report& report, const fs::path& root) {
  const auto prompts = c.config.at("prompts").get<std::vector<std::string>>();
  const data::WanLmdb clips(root / "wan_sft_lmdb"), trajectories(root / "wan_ode_lmdb");
  report.check("sft", clips.size() == sample_count(c, "sft"), "has another number of samples");
  report.check("ode", trajectories.size() == sample_count(c, "ode"),
               "has another number of samples");
  for (int64_t i = 0; i < clips.size(); ++i) {
    const std::string at = "sft/" + std::to_string(i) + "/";
    const auto sample = clips.read(i);
    compare_wan(c, report, at, "clean_latent", sample.clean(), sample);
    report.check(at + "prompt", sample.prompt == prompts.at(static_cast<size_t>(i)), sample.prompt);
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(root / "wan_ode_pt")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  report.check("ode files", static_cast<int64_t>(files.size()) == trajectories.size());
  for (int64_t i = 0; i < trajectories.size(); ++i) {
    const std::string at = "ode/" + std::to_string(i) + "/";
    for (const auto& sample :
         {trajectories.read(i), data::read_wan_ode_pt(files.at(static_cast<size_t>(i)))}) {
      compare_wan(c, report, at, "ode_latent", sample.states, sample);
      report.check(at + "prompt", sample.prompt == prompts.at(static_cast<size_t>(i)),
                   sample.prompt);
    }
  }
}

void replay_hy(const Case& c, Report& report, const fs::path& root) {
  const auto files = data::read_hy_index(root / "hy_pt/train_index.json");
  report.check("hy", static_cast<int64_t>(files.size()) == sample_count(c, "hy"),
               "has another number of samples");
  const bool image = c.config.at("hy_task").get<std::string>() == "i2v";
  const auto rate = c.config.at("hy_cfg_rate").get<double>();
  require(rate == 0 || rate == 1, "hy_cfg_rate {} depends on Python's random numbers", rate);
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string at = "hy/" + std::to_string(i) + "/";
    auto sample = data::read_hy_sample(files[i], c.config.at("hy_window_frames").get<int64_t>());
    if (rate == 1) {
      const auto negative = data::read_hy_negative_prompt(root / "hy_pt");
      sample.prompt_embed = negative.prompt_embed;
      sample.prompt_mask = negative.prompt_mask;
    }
    if (!image) {
      sample.image_cond = at::zeros_like(sample.image_cond);
    }
    report.compare(at + "latent", sample.latent, c.out(at + "latent"));
    report.compare(at + "image_cond", sample.image_cond, c.out(at + "image_cond"));
    report.compare(at + "prompt_embed", sample.prompt_embed, c.out(at + "prompt_embed"));
    report.check(at + "prompt_embed",
                 sample.prompt_embed.scalar_type() == c.out(at + "prompt_embed").scalar_type(),
                 "the dtype of the file was not kept");
    report.equal(at + "prompt_mask", sample.prompt_mask, c.out(at + "prompt_mask"));
    report.compare(at + "viewmats", sample.world_to_camera, c.out(at + "viewmats"));
    report.compare(at + "Ks", sample.intrinsics, c.out(at + "Ks"));
    report.equal(at + "action", sample.labels, c.out(at + "action"));
  }
  data::UpstreamSampler sampler;
  sampler.samples = static_cast<int64_t>(files.size());
  report.equal("hy/sampler_order", at::tensor(data::upstream_order(sampler, 0), at::kLong),
               c.out("hy/sampler_order"));
}

void replay_readers(const Case& c, Report& report) {
  const fs::path root = find_root(c);
  replay_wan(c, report, root);
  replay_hy(c, report, root);
}

const bool registered[] = {register_kind("camera.data.sampler", replay_sampler),
                           register_kind("camera.data.readers", replay_readers)};

}  // namespace
}  // namespace minwm::golden
