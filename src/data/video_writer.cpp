#include "minwm/data/video.h"

extern "C" {
#include <libavutil/opt.h>
}

#include <ATen/ATen.h>

#include "ffmpeg.h"
#include "minwm/core/error.h"
#include "minwm/core/files.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

struct CloseMuxer {
  void operator()(AVFormatContext* muxer) const {
    avio_closep(&muxer->pb);
    avformat_free_context(muxer);
  }
};

/// Encodes to `target`; errors name `shown`, the file that is meant to appear.
class Writer {
 public:
  Writer(const fs::path& target, const fs::path& shown, int64_t height, int64_t width, double fps,
         int crf)
      : shown_(shown), height_(static_cast<int>(height)), width_(static_cast<int>(width)) {
    silence_ffmpeg();
    AVFormatContext* raw = nullptr;
    check_ffmpeg(avformat_alloc_output_context2(&raw, nullptr, "mp4", target.c_str()), shown,
                 "cannot be written");
    muxer_.reset(raw);
    muxer_->flags |=
        AVFMT_FLAG_BITEXACT;  // no program version, no date: the same frames, the same bytes
    open_encoder(av_inv_q(av_d2q(fps, 1 << 20)), crf);
    stream_ = avformat_new_stream(raw, nullptr);
    stream_->time_base = encoder_->time_base;
    stream_->avg_frame_rate = encoder_->framerate;
    check_ffmpeg(avcodec_parameters_from_context(stream_->codecpar, encoder_.get()), shown,
                 "cannot set up the file");
    check_ffmpeg(avio_open(&muxer_->pb, target.c_str(), AVIO_FLAG_WRITE), shown,
                 "cannot be written");
    AVDictionary* options = nullptr;
    av_dict_set(&options, "movflags", "+faststart", 0);
    const int status = avformat_write_header(raw, &options);
    av_dict_free(&options);
    check_ffmpeg(status, shown, "cannot be written");
    open_picture();
  }

  /// rgb: H x W x 3 bytes.
  void write(const uint8_t* rgb) {
    check_ffmpeg(av_frame_make_writable(picture_.get()), shown_, "cannot encode");
    const uint8_t* const in[] = {rgb};
    const int stride[] = {width_ * 3};
    check_ffmpeg(
        sws_scale(scaler_.get(), in, stride, 0, height_, picture_->data, picture_->linesize),
        shown_, "cannot convert to YUV");
    picture_->pts = next_pts_++;
    encode(picture_.get());
  }

  void finish() {
    encode(nullptr);
    check_ffmpeg(av_write_trailer(muxer_.get()), shown_, "cannot be written");
    check_ffmpeg(muxer_->pb->error, shown_, "cannot be written");
    check_ffmpeg(avio_closep(&muxer_->pb), shown_, "cannot be written");
  }

 private:
  void open_encoder(AVRational time_base, int crf) {
    const AVCodec* codec = avcodec_find_encoder_by_name("libx264");
    require(codec != nullptr, "{}: this FFmpeg cannot write H.264 (it lacks libx264)",
            shown_.string());
    encoder_.reset(avcodec_alloc_context3(codec));
    encoder_->width = width_;
    encoder_->height = height_;
    encoder_->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder_->time_base = time_base;
    encoder_->framerate = av_inv_q(time_base);
    encoder_->color_range = AVCOL_RANGE_MPEG;
    encoder_->colorspace = AVCOL_SPC_BT709;
    encoder_->color_primaries = AVCOL_PRI_BT709;
    encoder_->color_trc = AVCOL_TRC_BT709;
    encoder_->thread_count = 1;  // ranks share the cores, and threads would change the bytes
    encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
    AVDictionary* options = nullptr;
    av_dict_set_int(&options, "crf", crf, 0);
    av_dict_set(&options, "preset", "medium", 0);
#ifdef __x86_64__
    // The AVX-512 code of libx264 164 gives other bytes from one run to the next (macroblock tree).
    if (__builtin_cpu_supports("avx512f") != 0) {
      av_dict_set(&options, "x264-params", "asm=avx2", 0);
    }
#endif
    const int status = avcodec_open2(encoder_.get(), codec, &options);
    av_dict_free(&options);
    check_ffmpeg(status, shown_, "cannot set up the encoder");
  }

  void open_picture() {
    picture_->format = AV_PIX_FMT_YUV420P;
    picture_->width = width_;
    picture_->height = height_;
    check_ffmpeg(av_frame_get_buffer(picture_.get(), 0), shown_, "cannot encode");
    scaler_.reset(sws_getContext(width_, height_, AV_PIX_FMT_RGB24, width_, height_,
                                 AV_PIX_FMT_YUV420P, SWS_BILINEAR | SWS_ACCURATE_RND, nullptr,
                                 nullptr, nullptr));
    require(scaler_ != nullptr, "{}: cannot convert to YUV", shown_.string());
    const int* bt709 = sws_getCoefficients(SWS_CS_ITU709);
    check_ffmpeg(sws_setColorspaceDetails(scaler_.get(), bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16),
                 shown_, "cannot convert to BT.709");
  }

  /// Null = flush.
  void encode(const AVFrame* frame) {
    check_ffmpeg(avcodec_send_frame(encoder_.get(), frame), shown_, "cannot encode");
    while (true) {
      const int status = avcodec_receive_packet(encoder_.get(), packet_.get());
      if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) {
        return;
      }
      check_ffmpeg(status, shown_, "cannot encode");
      packet_->duration =
          1;  // else the last frame lasts no time and the frame rate comes out wrong
      av_packet_rescale_ts(packet_.get(), encoder_->time_base, stream_->time_base);
      packet_->stream_index = stream_->index;
      check_ffmpeg(av_interleaved_write_frame(muxer_.get(), packet_.get()), shown_,
                   "cannot be written");
    }
  }

  fs::path shown_;
  int height_, width_;
  std::unique_ptr<AVFormatContext, CloseMuxer> muxer_;
  Encoder encoder_;
  AVStream* stream_ = nullptr;  // the muxer's
  Packet packet_{av_packet_alloc()};
  Frame picture_{av_frame_alloc()};
  Scaler scaler_;
  int64_t next_pts_ = 0;
};

}  // namespace

void write_video(const fs::path& path, const at::Tensor& frames, double fps, int crf) {
  require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte,
          "{}: a video is uint8 [F, H, W, 3], got {} of {} axes", path.string(),
          c10::toString(frames.scalar_type()), frames.dim());
  require(frames.numel() > 0 && frames.size(1) % 2 == 0 && frames.size(2) % 2 == 0,
          "{}: {} frames of {}x{} pixels cannot be written: H.264 needs even sizes", path.string(),
          frames.size(0), frames.size(2), frames.size(1));
  require(std::isfinite(fps) && fps > 0 && fps < 1000, "{}: {} frames per second", path.string(),
          fps);
  require(crf >= 0 && crf <= 51, "{}: crf {}, expected 0 to 51", path.string(), crf);
  const at::Tensor plain = frames.to(at::kCPU).contiguous();
  PendingFile pending(path);
  Writer writer(pending.path(), path, plain.size(1), plain.size(2), fps, crf);
  for (int64_t f = 0; f < plain.size(0); ++f) {
    writer.write(plain[f].const_data_ptr<uint8_t>());
  }
  writer.finish();
  pending.publish();
}

}  // namespace minwm::data
