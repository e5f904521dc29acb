#include "minwm/train/metrics.h"

#include <csignal>
#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "minwm/core/files.h"
#include "minwm/train/signals.h"
#include "tests/core/temporary_folder.h"

namespace minwm::train {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

std::vector<nlohmann::json> lines_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

std::vector<int64_t> steps_of(const std::filesystem::path& file) {
  std::vector<int64_t> steps;
  for (const auto& line : lines_of(file)) {
    steps.push_back(line["step"]);
  }
  return steps;
}

StepMetrics at_step(int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 0.5 + static_cast<double>(step);
  return metrics;
}

template <class Number>
Number number_at(const std::string& bytes, size_t offset) {
  Number number{};
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}

uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xA282EAD8;
  return (rotated >> 17) | (rotated << 15);
}

/// The payloads of a TFRecord file; checks both crcs of every frame.
std::vector<std::string> records_of(const std::string& bytes) {
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = number_at<uint64_t>(bytes, at);
    EXPECT_EQ(unmasked(number_at<uint32_t>(bytes, at + 8)), crc32c(bytes.substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(unmasked(number_at<uint32_t>(bytes, at + 12 + length)), crc32c(records.back()));
    at += 16 + length;
  }
  return records;
}

/// Field number → its values (bytes of a submessage, a double's, a float's, a varint as decimal
/// text).
std::multimap<uint64_t, std::string> fields_of(const std::string& message) {
  std::multimap<uint64_t, std::string> fields;
  size_t at = 0;
  auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) {
        return value;
      }
    }
  };
  while (at < message.size()) {
    const uint64_t tag = varint();
    const uint64_t type = tag & 7;
    if (type == 0) {
      fields.emplace(tag >> 3, std::to_string(varint()));
      continue;
    }
    const uint64_t size = type == 1 ? 8 : type == 5 ? 4 : varint();
    fields.emplace(tag >> 3, message.substr(at, size));
    at += size;
  }
  return fields;
}

std::string only(const std::multimap<uint64_t, std::string>& fields, uint64_t number) {
  EXPECT_EQ(fields.count(number), 1U) << "field " << number;
  return fields.find(number)->second;
}

TEST(Crc32c, HasTheValuesOfItsStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(EventWriter, WritesWhatTensorBoardReads) {
  const TemporaryFolder folder;
  {
    EventWriter events(folder.path(), 301);
    events.scalars(301, {{"train/loss", 0.25}, {"train/lr", 8e-3}});
  }
  ASSERT_EQ(folder.entries(), 1);
  const auto file = std::filesystem::directory_iterator(folder.path())->path();
  EXPECT_THAT(file.filename().string(), ::testing::StartsWith("events.out.tfevents."));
  const auto records = records_of(read_file(file));
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(only(fields_of(records[0]), 3), "brain.Event:2");
  const auto start = fields_of(records[1]);
  EXPECT_EQ(only(start, 2), "301");
  EXPECT_EQ(only(fields_of(only(start, 7)), 1), "1");
  const auto event = fields_of(records[2]);
  EXPECT_GT(number_at<double>(only(event, 1), 0), 1.6e9);  // seconds since 1970
  EXPECT_EQ(only(event, 2), "301");
  std::map<std::string, float> points;
  const auto summary = fields_of(only(event, 5));
  for (const auto& [number, value] : summary) {
    EXPECT_EQ(number, 1U);
    const auto point = fields_of(value);
    points[only(point, 1)] = number_at<float>(only(point, 2), 0);
  }
  EXPECT_EQ(points, (std::map<std::string, float>{{"train/loss", 0.25F}, {"train/lr", 8e-3F}}));
}

TEST(MetricsLog, WritesOneObjectPerStep) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path(), 0);
  StepMetrics metrics;
  metrics.step = 1;
  metrics.loss = 0.75;
  metrics.grad_norm = 2;
  metrics.lr = 1e-3;
  metrics.seconds = 0.5;
  metrics.tokens_per_second = 3072;
  metrics.data_wait = 0.01;
  log.write(metrics);
  metrics.step = 2;
  metrics.more = {{"camera_gap", 1.5}};
  log.write(metrics);
  const auto lines = lines_of(folder / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 2U);
  const nlohmann::json expected = {{"step", 1},        {"loss", 0.75},
                                   {"grad_norm", 2.0}, {"lr", 1e-3},
                                   {"seconds", 0.5},   {"tokens_per_second", 3072.0},
                                   {"data_wait", 0.01}};
  EXPECT_EQ(lines[0], expected);
  EXPECT_EQ(lines[1]["camera_gap"], 1.5);
}

TEST(MetricsLog, CutsWhatComesAfterTheResumedStep) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder.path(), 0);
    for (int64_t step = 1; step <= 5; ++step) {
      log.write(at_step(step));
    }
  }
  std::ofstream(folder / "metrics.jsonl", std::ios::app)
      << R"({"step": 2, "lo)";  // torn by a crash
  {
    MetricsLog log(folder.path(), 3);
    log.write(at_step(4));
  }
  EXPECT_THAT(steps_of(folder / "metrics.jsonl"), ElementsAre(1, 2, 3, 4));
}

TEST(MetricsLog, AFreshRunStartsAnEmptyFile) {
  const TemporaryFolder folder;
  MetricsLog(folder.path(), 0).write(at_step(1));
  MetricsLog(folder.path(), 0).write(at_step(1));
  EXPECT_THAT(steps_of(folder / "metrics.jsonl"), ElementsAre(1));
}

TEST(MetricsLog, NamesAFolderThatCannotBeWritten) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "in the way";
  EXPECT_THAT(error_of([&] { MetricsLog(folder / "file", 0); }),
              HasSubstr((folder / "file").string()));
}

TEST(StopSignals, RemembersASignalInsteadOfEnding) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const StopSignals signals;
    EXPECT_FALSE(signals.requested());
    std::raise(signal);
    EXPECT_TRUE(signals.requested());
  }
  EXPECT_EXIT(std::raise(SIGTERM), ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace minwm::train
