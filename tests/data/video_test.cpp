#include "minwm/data/video.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "minwm/core/files.h"
#include "tests/core/small_disk.h"
#include "tests/core/temporary_folder.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::AnyOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

/// Smooth moving colours: uint8 [frames, height, width, 3].
at::Tensor moving_colours(int64_t frames, int64_t height, int64_t width) {
  const at::Tensor t = at::arange(frames).view({-1, 1, 1}) * 0.1;
  const at::Tensor y = at::linspace(0, 3, height).view({1, -1, 1});
  const at::Tensor x = at::linspace(0, 4, width).view({1, 1, -1});
  return at::stack({at::sin(x + t) + 0 * y, at::cos(y - t) + 0 * x, at::sin(x + y + 2 * t)}, 3)
      .mul(110)
      .add(128)
      .to(at::kByte);
}

double psnr(const at::Tensor& a, const at::Tensor& b) {
  const double error = (a.to(at::kFloat) - b.to(at::kFloat)).square().mean().item<double>();
  return 10 * std::log10(255 * 255 / error);
}

TEST(Video, WhatIsWrittenComesBackNearlyTheSame) {
  const TemporaryFolder folder;
  const at::Tensor frames = moving_colours(21, 96, 160);
  for (const double fps : {16.0, 24000.0 / 1001, 8.0}) {
    write_video(folder / "a.mp4", frames, fps);
    const Video video = read_video(folder / "a.mp4");
    ASSERT_EQ(video.frames.sizes(), frames.sizes());
    EXPECT_EQ(video.frames.scalar_type(), at::kByte);
    EXPECT_NEAR(video.fps, fps, 1e-3);
    EXPECT_GT(psnr(video.frames, frames), 40);
  }
  EXPECT_EQ(folder.entries(), 1);
  EXPECT_TRUE(at::equal(read_video(folder / "a.mp4", 5).frames,
                        read_video(folder / "a.mp4").frames.slice(0, 0, 5)));
}

TEST(Video, PureColoursKeepTheirValues) {
  // A wrong matrix or range shifts these by 5 to 20 levels.
  const TemporaryFolder folder;
  for (const int64_t height : {64, 720}) {
    for (const std::vector<int>& colour : {std::vector<int>{255, 0, 0},
                                           {0, 255, 0},
                                           {0, 0, 255},
                                           {255, 255, 255},
                                           {0, 0, 0},
                                           {90, 160, 40}}) {
      const at::Tensor rgb = at::tensor(colour, at::kInt);
      write_video(folder / "a.mp4", rgb.to(at::kByte).expand({1, height, 64, 3}), 8, 4);
      const at::Tensor seen = read_video(folder / "a.mp4").frames[0][height / 2][32];
      EXPECT_LE((seen.to(at::kInt) - rgb).abs().max().item<int>(), 3) << rgb << seen;
    }
  }
}

TEST(Video, TheSameFramesGiveTheSameBytes) {
  const TemporaryFolder folder;
  const at::Tensor frames = moving_colours(30, 64, 64);
  write_video(folder / "a.mp4", frames, 16);
  const std::string bytes = read_file(folder / "a.mp4");
  for (int repeat = 0; repeat < 10; ++repeat) {
    write_video(folder / "b.mp4", frames, 16);
    EXPECT_TRUE(bytes == read_file(folder / "b.mp4")) << repeat;
  }
  EXPECT_LT(bytes.find("moov"), bytes.find("mdat")) << "a player must see the index first";
}

TEST(Video, ALowerCrfIsBetterAndLarger) {
  const TemporaryFolder folder;
  const at::Tensor frames = moving_colours(9, 64, 64);
  write_video(folder / "fine.mp4", frames, 16, 8);
  write_video(folder / "coarse.mp4", frames, 16, 35);
  EXPECT_GT(fs::file_size(folder / "fine.mp4"), fs::file_size(folder / "coarse.mp4"));
  EXPECT_GT(psnr(read_video(folder / "fine.mp4").frames, frames),
            psnr(read_video(folder / "coarse.mp4").frames, frames) + 3);
}

TEST(Video, RealClipsAreReadWhole) {
  const fs::path clips = MINWM_SHARED_DATA "/data/re10k/videos";
  if (!fs::is_directory(clips)) {
    GTEST_SKIP() << "the shared RealEstate10K clips are not here";
  }
  for (const auto& file : fs::directory_iterator(clips)) {
    const Video video = read_video(file.path());
    EXPECT_EQ(video.frames.sizes(), at::IntArrayRef({16, 256, 384, 3})) << file.path();
    EXPECT_EQ(video.fps, 8);
    EXPECT_GT(video.frames.to(at::kFloat).std().item<float>(), 10);
  }
}

TEST(Video, MissingAndForeignFilesAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { (void)read_video(folder / "none.mp4"); }),
              HasSubstr("none.mp4: no such video file"));
  atomic_write(folder / "text.mp4", "not a video at all");
  EXPECT_THAT(error_of([&] { (void)read_video(folder / "text.mp4"); }),
              HasSubstr("text.mp4: not a readable video file"));
  atomic_write(folder / "empty.mp4", "");
  EXPECT_THAT(error_of([&] { (void)read_video(folder / "empty.mp4"); }), HasSubstr("empty.mp4"));
}

TEST(Video, AFileWithoutPicturesIsRefused) {
  const TemporaryFolder folder;
  // A WAV header, one channel, 8 bit, 8000 Hz, and half a second of silence.
  std::string wav(
      "RIFF\xC4\x0F\0\0WAVEfmt "
      "\x10\0\0\0\1\0\1\0\x40\x1F\0\0\x40\x1F\0\0\1\0\x08\0data\xA0\x0F\0\0",
      44);
  wav += std::string(4000, '\x80');
  atomic_write(folder / "sound.wav", wav);
  EXPECT_THAT(error_of([&] { (void)read_video(folder / "sound.wav"); }),
              HasSubstr("sound.wav: has no video stream"));
}

TEST(Video, TruncatedAndDamagedFilesAreRefusedAtEveryLength) {
  const TemporaryFolder folder;
  write_video(folder / "whole.mp4", moving_colours(21, 64, 96), 16);
  const std::string whole = read_file(folder / "whole.mp4");
  for (const double part : {0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999}) {
    atomic_write(folder / "cut.mp4",
                 whole.substr(0, static_cast<size_t>(part * static_cast<double>(whole.size()))));
    EXPECT_THAT(error_of([&] { (void)read_video(folder / "cut.mp4"); }),
                AllOf(HasSubstr("cut.mp4: "), AnyOf(HasSubstr("truncated"), HasSubstr("cannot"))))
        << part;
  }
  // Overwritten in the middle of the pictures.
  std::string damaged = whole;
  const size_t begin = damaged.find("mdat") + 1200;
  for (size_t i = begin; i < std::min(begin + 2000, damaged.size()); ++i) {
    damaged[i] = static_cast<char>(i * 37);
  }
  atomic_write(folder / "damaged.mp4", damaged);
  EXPECT_THAT(error_of([&] { (void)read_video(folder / "damaged.mp4"); }),
              AllOf(HasSubstr("damaged.mp4: "), HasSubstr("damaged")));
}

TEST(Video, ReadersPrintNothing) {
  const TemporaryFolder folder;
  atomic_write(folder / "text.mp4", "not a video at all");
  ::testing::internal::CaptureStderr();
  (void)error_of([&] { (void)read_video(folder / "text.mp4"); });
  write_video(folder / "a.mp4", moving_colours(2, 16, 16), 8);
  atomic_write(folder / "cut.jpg", "\xFF\xD8\xFF\xE0 nothing");
  (void)error_of([&] { (void)read_image(folder / "cut.jpg"); });
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Video, WhatCannotBeWrittenLeavesNothing) {
  const TemporaryFolder folder;
  const auto path = folder / "a.mp4";
  EXPECT_THAT(error_of([&] {
                write_video(path, at::zeros({3, 15, 16, 3}, at::kByte), 8);
              }),
              HasSubstr("a.mp4: 3 frames of 16x15 pixels"));
  EXPECT_THAT(error_of([&] {
                write_video(path, at::zeros({0, 16, 16, 3}, at::kByte), 8);
              }),
              HasSubstr("0 frames"));
  EXPECT_THAT(error_of([&] {
                write_video(path, at::zeros({3, 16, 16, 3}), 8);
              }),
              HasSubstr("a video is uint8"));
  EXPECT_THAT(error_of([&] {
                write_video(path, at::zeros({3, 16, 16, 3}, at::kByte), 0);
              }),
              HasSubstr("0 frames per second"));
  EXPECT_EQ(folder.entries(), 0);
}

TEST(Video, AFullDiskIsOneClearErrorAndLeavesTheOldFile) {
  const TemporaryFolder folder;
  const minwm::testing::SmallDisk disk(folder / "small", "64k");
  if (!disk.mounted()) {
    GTEST_SKIP() << "mounting a small tmpfs needs root";
  }
  write_video(disk / "a.mp4", moving_colours(2, 32, 32), 8);
  const std::string before = read_file(disk / "a.mp4");
  const at::Tensor noise = at::randint(256, {20, 64, 64, 3}, at::kInt).to(at::kByte);
  EXPECT_THAT(error_of([&] { write_video(disk / "a.mp4", noise, 8, 4); }),
              AllOf(HasSubstr("a.mp4"), HasSubstr("No space left on device")));
  EXPECT_THAT(error_of([&] {
                write_image(disk / "b.png", noise.view({-1, 64, 3}));
              }),
              AllOf(HasSubstr("b.png"), HasSubstr("No space left on device")));
  EXPECT_EQ(read_file(disk / "a.mp4"), before);
  EXPECT_EQ(disk.entries(), 1);
}

TEST(Pixels, AreScaledAndResizedLikeTheReference) {
  const at::Tensor frames = at::arange(2 * 4 * 6 * 3, at::kInt).view({2, 4, 6, 3}).to(at::kByte);
  const at::Tensor same = to_pixels(frames, 4, 6);
  EXPECT_EQ(same.sizes(), at::IntArrayRef({2, 3, 4, 6}));
  EXPECT_TRUE(at::allclose(same, frames.permute({0, 3, 1, 2}).to(at::kFloat) / 127.5 - 1, 0, 1e-6));
  EXPECT_TRUE(
      at::equal(to_pixels(at::tensor({0, 255, 51}, at::kInt).to(at::kByte).view({1, 1, 1, 3}), 1, 1)
                    .flatten(),
                at::tensor({-1.f, 1.f, (51.f / 255 - .5f) * 2})));
  // Half-pixel centres without antialiasing: twice as small = the mean of the middle 2 x 2.
  const at::Tensor half = to_pixels(frames, 2, 3);
  EXPECT_TRUE(at::allclose(half, at::avg_pool2d(same, {2, 2}), 0, 1e-5));
  // A third as small takes the middle pixel alone.
  const at::Tensor third = to_pixels(frames, 4, 2);
  EXPECT_TRUE(at::allclose(third.select(3, 0), same.select(3, 1), 0, 1e-5));
}

TEST(Image, RgbComesBack) {
  const TemporaryFolder folder;
  const at::Tensor image = moving_colours(1, 20, 30)[0];
  write_image(folder / "a.png", image);
  EXPECT_TRUE(at::equal(read_image(folder / "a.png"), image));
  write_image(folder / "a.jpg", image);
  EXPECT_GT(psnr(read_image(folder / "a.jpg"), image), 30);
  const at::Tensor red = at::tensor({255, 0, 0}, at::kInt).to(at::kByte).expand({8, 8, 3});
  write_image(folder / "red.jpg", red);
  EXPECT_GT(psnr(read_image(folder / "red.jpg"), red), 35);
  EXPECT_EQ(folder.entries(), 3);
}

TEST(Image, MissingForeignAndTruncatedImagesAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { (void)read_image(folder / "none.png"); }),
              HasSubstr("none.png: No such file"));
  atomic_write(folder / "text.png", "not an image");
  EXPECT_THAT(error_of([&] { (void)read_image(folder / "text.png"); }),
              HasSubstr("text.png: not a readable image"));
  atomic_write(folder / "empty.png", "");
  EXPECT_THAT(error_of([&] { (void)read_image(folder / "empty.png"); }),
              HasSubstr("not a readable"));
  for (const std::string name : {"a.png", "a.jpg"}) {
    write_image(folder / name, moving_colours(1, 64, 64)[0]);
    const std::string whole = read_file(folder / name);
    for (const size_t keep : {whole.size() / 3, whole.size() - 100}) {
      atomic_write(folder / name, whole.substr(0, keep));
      EXPECT_THAT(error_of([&] { (void)read_image(folder / name); }),
                  HasSubstr(name + ": the image is truncated"));
    }
  }
  EXPECT_THAT(error_of([&] {
                write_image(folder / "a.gif", at::zeros({2, 2, 3}, at::kByte));
              }),
              HasSubstr("a.gif: images are written as"));
}

}  // namespace
}  // namespace minwm::data
