#pragma once
// What the reader and the writer of a latent store share: names, rows and the checksum of a slot.

#include <cstdint>
#include <string>
#include <string_view>

#include "minwm/core/hdf5.h"
#include "minwm/data/latent_store.h"

namespace minwm::data::store {

inline constexpr std::string_view kFormat = "minwm-latents";
inline constexpr int64_t kVersion = 1;
inline constexpr int64_t kIdBytes = 128;
inline constexpr int64_t kAboutBytes = 4096;

enum State : uint8_t { kEmpty = 0, kDone = 1, kFailed = 2 };

/// One slot as it lies in the file, every tensor with a leading axis of 1 (undefined where absent).
struct Row {
  at::Tensor latents;          ///< [1, T, C, h, w] float16
  at::Tensor world_to_camera;  ///< [1, T, 4, 4] float32
  at::Tensor intrinsics;       ///< [1, 3, 3] float32
  at::Tensor text;             ///< [1, L, E] or undefined
  at::Tensor ode_states;       ///< [1, S + 2, T, C, h, w] float16 or undefined
  at::Tensor sample_id;        ///< [1, 128] uint8
  at::Tensor about;            ///< [1, 4096] uint8
};

/// States of a trajectory in an ODE store: S levels, the endpoint and the real clip.
int64_t ode_states(const StoreLayout& layout);

/// Order-sensitive hash of all bytes of a row.
int64_t checksum(const Row& row);

/// The file's layout. @throws Error naming it: not a latent store, another version, a dataset of
/// another shape than the others.
StoreLayout read_layout(const hdf5::File& file);

/// Creates every dataset for `capacity` slots, all of them empty.
void create(hdf5::File& file, const StoreLayout& layout, int64_t capacity);

Row read_row(const hdf5::File& file, const StoreLayout& layout, int64_t slot);
/// All but the state. A failed sample has no tensors: they are left as they are.
void write_row(hdf5::File& file, int64_t slot, const Row& row);

/// `text` as [1, size] bytes, zero padded. @throws Error "WHAT: …" if it is too long or contains a
/// zero.
at::Tensor to_bytes(const std::string& text, int64_t size, const std::string& what);
/// One row of bytes up to its first zero.
std::string to_text(const at::Tensor& bytes);

/// A caption and what else is known of a clip, as the bytes of `about`, and back.
at::Tensor about_to_bytes(const Clip& clip, const std::string& where);
void about_from_bytes(const at::Tensor& bytes, Clip& clip, const std::string& where);
at::Tensor reason_to_bytes(std::string reason);
std::string reason_from_bytes(const at::Tensor& bytes, const std::string& where);

/// True if no element is infinite or NaN. Not for empty tensors.
bool all_finite(const at::Tensor& tensor);
/// Shapes as in the layout, finite, cameras valid (spec 10.7). @throws Error "WHERE: …".
void require_valid(const Clip& clip, const StoreLayout& layout, const std::string& where);

}  // namespace minwm::data::store
