#pragma once
// What reading and writing video files share: owners of FFmpeg's objects and its errors as ours.

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
}

#include <filesystem>
#include <memory>

#include "minwm/core/error.h"

namespace minwm::data {

template <class T, void (*release)(T**)>
struct ReleaseFfmpeg {
  void operator()(T* object) const { release(&object); }
};
struct FreeScaler {
  void operator()(SwsContext* context) const { sws_freeContext(context); }
};
using Decoder =
    std::unique_ptr<AVCodecContext, ReleaseFfmpeg<AVCodecContext, avcodec_free_context>>;
using Encoder = Decoder;
using Demuxer =
    std::unique_ptr<AVFormatContext, ReleaseFfmpeg<AVFormatContext, avformat_close_input>>;
using Frame = std::unique_ptr<AVFrame, ReleaseFfmpeg<AVFrame, av_frame_free>>;
using Packet = std::unique_ptr<AVPacket, ReleaseFfmpeg<AVPacket, av_packet_free>>;
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

/// `status`, or one line naming the file, what failed and FFmpeg's reason.
inline int check_ffmpeg(int status, const std::filesystem::path& path, const char* what) {
  if (status < 0) {
    char reason[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(status, reason, sizeof reason);
    fail("{}: {}: {}", path.string(), what, reason);
  }
  return status;
}

/// FFmpeg prints to stderr on its own; every failure is an Error of ours instead.
inline void silence_ffmpeg() {
  av_log_set_level(AV_LOG_QUIET);
}

}  // namespace minwm::data
