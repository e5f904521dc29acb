#include "minwm/data/video.h"

extern "C" {
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>
}

#include <ATen/ATen.h>

#include "ffmpeg.h"
#include "minwm/core/error.h"

namespace minwm::data {
namespace {

namespace fs = std::filesystem;

/// The full-range twin of a format ("yuvj420p") is the format itself plus a range.
AVPixelFormat without_range(AVPixelFormat format) {
  switch (format) {
    case AV_PIX_FMT_YUVJ420P:
      return AV_PIX_FMT_YUV420P;
    case AV_PIX_FMT_YUVJ422P:
      return AV_PIX_FMT_YUV422P;
    case AV_PIX_FMT_YUVJ444P:
      return AV_PIX_FMT_YUV444P;
    case AV_PIX_FMT_YUVJ440P:
      return AV_PIX_FMT_YUV440P;
    default:
      return format;
  }
}

/// The luma/chroma matrix; files that do not say follow the custom: BT.709 from 720 lines up, else
/// BT.601.
int matrix_of(const AVFrame& frame) {
  switch (frame.colorspace) {
    case AVCOL_SPC_BT709:
      return SWS_CS_ITU709;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
      return SWS_CS_BT2020;
    case AVCOL_SPC_SMPTE240M:
      return SWS_CS_SMPTE240M;
    case AVCOL_SPC_FCC:
      return SWS_CS_FCC;
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M:
      return SWS_CS_ITU601;
    default:
      return frame.height >= 720 ? SWS_CS_ITU709 : SWS_CS_ITU601;
  }
}

/// Decodes one file into a growing [capacity, H, W, 3] buffer.
class Reader {
 public:
  Reader(const fs::path& path, int64_t max_frames) : path_(path), max_frames_(max_frames) {
    silence_ffmpeg();
    require(fs::is_regular_file(path), "{}: no such video file", path.string());
    AVFormatContext* raw = nullptr;
    check_ffmpeg(avformat_open_input(&raw, path.c_str(), nullptr, nullptr), path,
                 "not a readable video file (damaged or truncated?)");
    demuxer_.reset(raw);
    check_ffmpeg(avformat_find_stream_info(raw, nullptr), path, "cannot read the streams");
    open_stream();
    require_whole_file();
  }

  Video read() {
    while (!full()) {
      const int status = av_read_frame(demuxer_.get(), packet_.get());
      if (status == AVERROR_EOF) {
        drain();
        break;
      }
      check_ffmpeg(status, path_, "cannot read the video stream");
      if (packet_->stream_index == stream_->index) {
        decode(packet_.get());
      }
      av_packet_unref(packet_.get());
    }
    require(count_ > 0, "{}: holds no video frame", path_.string());
    const AVRational rate = av_guess_frame_rate(demuxer_.get(), stream_, nullptr);
    require(rate.num > 0 && rate.den > 0, "{}: the frame rate is unknown", path_.string());
    return {upright(frames_.slice(0, 0, count_)), av_q2d(rate)};
  }

 private:
  bool full() const { return max_frames_ >= 0 && count_ >= max_frames_; }

  void open_stream() {
    const AVCodec* codec = nullptr;
    const int index = av_find_best_stream(demuxer_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    require(index != AVERROR_STREAM_NOT_FOUND, "{}: has no video stream (sound only, or truncated)",
            path_.string());
    check_ffmpeg(index, path_, "no decoder for its video stream");
    stream_ = demuxer_->streams[index];
    decoder_.reset(avcodec_alloc_context3(codec));
    check_ffmpeg(avcodec_parameters_to_context(decoder_.get(), stream_->codecpar), path_,
                 "cannot set up the decoder");
    decoder_->thread_count = 1;  // ranks share the cores
    decoder_->err_recognition = AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER | AV_EF_EXPLODE;
    check_ffmpeg(avcodec_open2(decoder_.get(), codec, nullptr), path_, "cannot open the decoder");
  }

  /// A truncated mp4 whose index comes first would simply end early.
  void require_whole_file() const {
    const int64_t size = avio_size(demuxer_->pb);
    int64_t end = 0;
    for (int i = 0; i < avformat_index_get_entries_count(stream_); ++i) {
      const AVIndexEntry* entry = avformat_index_get_entry(stream_, i);
      end = std::max(end, entry->pos + entry->size);
    }
    require(size < 0 || end <= size, "{}: truncated: its index speaks of {} bytes, the file has {}",
            path_.string(), end, size);
  }

  void drain() { decode(nullptr); }

  /// Null = no more packets.
  void decode(const AVPacket* packet) {
    check_ffmpeg(avcodec_send_packet(decoder_.get(), packet), path_, "damaged video data");
    while (!full()) {
      const int status = avcodec_receive_frame(decoder_.get(), frame_.get());
      if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) {
        return;
      }
      check_ffmpeg(status, path_, "damaged video data");
      require((frame_->flags & AV_FRAME_FLAG_CORRUPT) == 0 && frame_->decode_error_flags == 0,
              "{}: frame {} is damaged", path_.string(), count_);
      append(*frame_);
      av_frame_unref(frame_.get());
    }
  }

  void append(const AVFrame& frame) {
    if (count_ == 0) {
      const int64_t known = stream_->nb_frames > 0 ? stream_->nb_frames : 64;
      frames_ = at::empty(
          {max_frames_ >= 0 ? std::min(known, max_frames_) : known, frame.height, frame.width, 3},
          at::kByte);
      open_scaler(frame);
    }
    require(frame.height == frames_.size(1) && frame.width == frames_.size(2) &&
                frame.format == source_format_,
            "{}: frame {} is {}x{}, the ones before {}x{}", path_.string(), count_, frame.width,
            frame.height, frames_.size(2), frames_.size(1));
    if (count_ == frames_.size(0)) {
      frames_ = at::cat({frames_, at::empty_like(frames_)});
    }
    uint8_t* const out[] = {frames_[count_].mutable_data_ptr<uint8_t>()};
    const int stride[] = {frame.width * 3};
    check_ffmpeg(sws_scale(scaler_.get(), frame.data, frame.linesize, 0, frame.height, out, stride),
                 path_, "cannot convert to RGB");
    ++count_;
  }

  void open_scaler(const AVFrame& frame) {
    source_format_ = frame.format;
    const auto format = static_cast<AVPixelFormat>(frame.format);
    scaler_.reset(sws_getContext(frame.width, frame.height, without_range(format), frame.width,
                                 frame.height, AV_PIX_FMT_RGB24,
                                 SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, nullptr,
                                 nullptr, nullptr));
    require(scaler_ != nullptr, "{}: pixel format {} cannot be converted to RGB", path_.string(),
            av_get_pix_fmt_name(format));
    const bool full_range =
        frame.color_range == AVCOL_RANGE_JPEG || without_range(format) != format;
    // -1: formats without a matrix (RGB, palettes) have nothing to set.
    (void)sws_setColorspaceDetails(scaler_.get(), sws_getCoefficients(matrix_of(frame)),
                                   full_range ? 1 : 0, sws_getCoefficients(SWS_CS_ITU709), 1, 0,
                                   1 << 16, 1 << 16);
  }

  /// Phones store sideways frames and a rotation.
  at::Tensor upright(const at::Tensor& frames) const {
    const uint8_t* matrix = av_stream_get_side_data(stream_, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
    if (matrix == nullptr) {
      return frames;
    }
    const double degrees = av_display_rotation_get(reinterpret_cast<const int32_t*>(matrix));
    require(std::isfinite(degrees), "{}: its display matrix is damaged", path_.string());
    const int64_t quarters = std::lround(degrees / 90) & 3;  // counter-clockwise, like rot90
    return quarters == 0 ? frames : at::rot90(frames, quarters, {1, 2}).contiguous();
  }

  fs::path path_;
  int64_t max_frames_;
  Demuxer demuxer_;
  Decoder decoder_;
  AVStream* stream_ = nullptr;  // the demuxer's
  Packet packet_{av_packet_alloc()};
  Frame frame_{av_frame_alloc()};
  Scaler scaler_;
  int source_format_ = -1;
  at::Tensor frames_;
  int64_t count_ = 0;
};

}  // namespace

Video read_video(const fs::path& path, int64_t max_frames) {
  TORCH_INTERNAL_ASSERT(max_frames != 0);
  return Reader(path, max_frames).read();
}

at::Tensor to_pixels(const at::Tensor& frames, int64_t height, int64_t width) {
  require(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte &&
              frames.numel() > 0,
          "to_pixels: expected uint8 [F, H, W, 3], got {} of {} axes",
          c10::toString(frames.scalar_type()), frames.dim());
  require(height > 0 && width > 0, "to_pixels: size {}x{}", width, height);
  at::Tensor pixels =
      frames.permute({0, 3, 1, 2}).to(at::kFloat, false, false, at::MemoryFormat::Contiguous);
  if (height != frames.size(1) || width != frames.size(2)) {
    pixels = at::upsample_bilinear2d(pixels, {height, width}, /*align_corners=*/false);
  }
  // The order of operations of the reference: the same bits.
  return pixels.div_(255).sub_(0.5).mul_(2);
}

}  // namespace minwm::data
