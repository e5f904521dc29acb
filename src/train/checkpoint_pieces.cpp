#include "checkpoint_pieces.h"

#include <ATen/ATen.h>
#include <spdlog/fmt/ranges.h>

#include "checkpoint_agreement.h"
#include "checkpoint_files.h"
#include "minwm/core/error.h"
#include "minwm/core/random.h"

namespace minwm::train {
namespace {

at::Tensor flat_view(const at::Tensor& tensor) {
  return tensor.detach().reshape({-1});
}

void require_fits(const Piece& piece) {
  const int64_t count = piece.values.numel();
  require(piece.begin >= 0 && piece.begin <= piece.numel() - count,
          "checkpoint tensor '{}': elements {} to {} are outside of its {}", piece.name,
          piece.begin, piece.begin + count, fmt::join(piece.shape, " x "));
  const auto width = static_cast<int64_t>(piece.values.element_size());
  constexpr int64_t kWord = sizeof(uint32_t);
  require(piece.begin * width % kWord == 0 &&
              (piece.begin + count == piece.numel() || (piece.begin + count) * width % kWord == 0),
          "checkpoint tensor '{}': its parts of {} are not cut at whole words of 4 bytes",
          piece.name, c10::toString(piece.type));
}

}  // namespace

int64_t Piece::numel() const {
  return c10::multiply_integers(shape);
}

at::Tensor HostBuffers::copy(const std::string& name, const at::Tensor& flat) {
  at::Tensor& buffer = buffers_[name];
  if (!buffer.defined() || buffer.scalar_type() != flat.scalar_type() ||
      buffer.numel() != flat.numel()) {
    buffer = at::empty(flat.sizes(), flat.options().device(at::kCPU).pinned_memory(flat.is_cuda()));
  }
  buffer.copy_(flat);
  return buffer;
}

std::vector<Piece> pieces_of(const TensorMap& whole, const PartMap& parts, int rank, int size,
                             HostBuffers* buffers) {
  std::map<std::string, Piece> by_name;
  int64_t index = 0;
  for (const auto& [name, tensor] : whole) {
    const Share share = share_of(index++, tensor.numel(), rank, size);
    by_name[name] = {name, tensor.scalar_type(), tensor.sizes().vec(), share.begin,
                     flat_view(tensor).slice(0, share.begin, share.end)};
  }
  for (const auto& [name, part] : parts) {
    require(whole.count(name) == 0, "checkpoint tensor '{}': is given whole and in parts", name);
    const at::Tensor values = part.values.defined() ? flat_view(part.values) : at::empty({0});
    by_name[name] = {name, values.scalar_type(), part.shape, values.numel() > 0 ? part.begin : 0,
                     values};
  }
  std::vector<Piece> pieces;
  for (auto& [name, piece] : by_name) {
    require_fits(piece);
    piece.values = buffers != nullptr ? buffers->copy(name, piece.values)
                                      : piece.values.to(at::kCPU).contiguous();
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

void require_complete(const std::vector<Piece>& pieces, const std::string& text,
                      comm::Communicator& ranks) {
  uint64_t hash = stream_key({.seed = 0, .purpose = text});
  for (const auto& piece : pieces) {
    const std::string described = fmt::format("{} {} {}", piece.name, c10::toString(piece.type),
                                              fmt::join(piece.shape, " x "));
    hash = mix64(hash ^ stream_key({.seed = 0, .purpose = described}));
  }
  at::Tensor hashes = at::zeros({ranks.size()}, at::kLong);
  hashes[ranks.rank()] = static_cast<int64_t>(hash);
  all_reduce_patiently(hashes, ranks, "checkpoint contents");
  require(hashes.eq(hashes[0]).all().item<bool>(),
          "the ranks do not agree on the names, types, shapes and description to save");

  at::Tensor counts = at::zeros({static_cast<int64_t>(pieces.size())}, at::kLong);
  int64_t* const count = counts.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < pieces.size(); ++i) {
    count[i] = pieces[i].values.numel();
  }
  all_reduce_patiently(counts, ranks, "checkpoint parts");
  for (size_t i = 0; i < pieces.size(); ++i) {
    require(count[i] == pieces[i].numel(),
            "checkpoint tensor '{}': the ranks hold {} elements of its {}", pieces[i].name,
            count[i], pieces[i].numel());
  }
}

}  // namespace minwm::train
