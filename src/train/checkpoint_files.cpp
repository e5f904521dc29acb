#include "checkpoint_files.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::train {

std::string step_name(int64_t step) {
  return fmt::format("step-{:06}", step);
}

int64_t step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) {
    return -1;
  }
  int64_t step = -1;
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
  return parsed.ec == std::errc() && parsed.ptr == end ? step : -1;
}

std::vector<std::filesystem::path> step_folders(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> folders;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    if (entry.is_directory() && step_of(entry.path().filename().string()) >= 0) {
      folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end(), [](const auto& a, const auto& b) {
    return step_of(a.filename().string()) < step_of(b.filename().string());
  });
  return folders;
}

bool is_step_folder(const std::filesystem::path& path) {
  return step_of(path.filename().string()) >= 0 || std::filesystem::exists(path / kStateFile);
}

std::vector<std::filesystem::path> candidates(const std::filesystem::path& run) {
  if (is_step_folder(run)) {
    return {run};
  }
  std::vector<std::filesystem::path> newest_first;
  for (const auto& directory : {run / "checkpoints", run}) {
    const auto folders = step_folders(directory);
    newest_first.insert(newest_first.end(), folders.rbegin(), folders.rend());
  }
  return newest_first;
}

uint64_t checksum(const at::Tensor& tensor, uint64_t first_word) {
  const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
  const auto* words = static_cast<const uint32_t*>(plain.const_data_ptr());
  const uint64_t count = plain.nbytes() / sizeof(uint32_t);
  const uint64_t rest = plain.nbytes() % sizeof(uint32_t);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; ++i) {
    sum += mix64(((first_word + i) << 32) | words[i]);
  }
  if (rest > 0) {
    uint32_t last = 0;
    std::memcpy(&last, words + count, rest);
    sum += mix64(((first_word + count) << 32) | last);
  }
  return sum;
}

Share share_of(int64_t index, int64_t numel, int rank, int size) {
  constexpr int64_t kLarge = 64 * 1024, kCut = 1024;
  if (numel < kLarge) {
    return index % size == rank ? Share{0, numel} : Share{0, 0};
  }
  const auto cut = [&](int64_t r) { return r == size ? numel : numel * r / size / kCut * kCut; };
  return {cut(rank), cut(rank + 1)};
}

std::filesystem::path checkpoint_folder(const std::filesystem::path& given) {
  return given.filename() == kStateFile ? given.parent_path() : given;
}

std::string info_to_json(const CheckpointInfo& info) {
  const nlohmann::ordered_json json = {
      {"step", info.step},
      {"seed", info.seed},
      {"model", info.model},
      {"stage", info.stage},
      {"config", info.config},
      {"codec", info.codec},
      {"sampler", info.sampler},
      {"step_list", info.step_list},
      {"first_chunk_step_list", info.first_chunk_step_list},
      {"guidance", info.guidance},
      {"context_noise", info.context_noise},
      {"window_frames", info.window_frames},
      {"sink_frames", info.sink_frames},
      {"camera_cache", info.camera_cache},
      {"context_action", info.context_action},
      {"first_frame", info.first_frame},
      {"shift", info.shift},
      {"chunk_frames", info.chunk_frames},
      {"latent_height", info.latent_height},
      {"latent_width", info.latent_width},
      {"latent_frames", info.latent_frames},
      {"fx", info.fx},
      {"fy", info.fy},
  };
  return json.dump();
}

CheckpointInfo info_from_json(const std::string& text, const std::string& where) {
  try {
    const auto json = nlohmann::json::parse(text);
    CheckpointInfo info;
    json.at("step").get_to(info.step);
    json.at("seed").get_to(info.seed);
    json.at("model").get_to(info.model);
    json.at("stage").get_to(info.stage);
    json.at("config").get_to(info.config);
    json.at("codec").get_to(info.codec);
    json.at("sampler").get_to(info.sampler);
    json.at("step_list").get_to(info.step_list);
    // Absent from checkpoints of before the few-step stages.
    info.first_chunk_step_list = json.value("first_chunk_step_list", info.first_chunk_step_list);
    info.guidance = json.value("guidance", info.guidance);
    info.context_noise = json.value("context_noise", info.context_noise);
    info.window_frames = json.value("window_frames", info.window_frames);
    info.sink_frames = json.value("sink_frames", info.sink_frames);
    info.camera_cache = json.value("camera_cache", info.camera_cache);
    info.context_action = json.value("context_action", info.context_action);
    info.first_frame = json.value("first_frame", info.first_frame);
    json.at("shift").get_to(info.shift);
    json.at("chunk_frames").get_to(info.chunk_frames);
    json.at("latent_height").get_to(info.latent_height);
    json.at("latent_width").get_to(info.latent_width);
    json.at("latent_frames").get_to(info.latent_frames);
    json.at("fx").get_to(info.fx);
    json.at("fy").get_to(info.fy);
    return info;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: attribute 'info' is damaged: {}", where, error.what());
  }
}

}  // namespace minwm::train
