#pragma once
// Videos as pictures to look at: a contact sheet (one row per trajectory) and a tiled video (all of
// them at once).
//
//   data::write_image("sheet.png", contact_sheet({{"forward", w}, {"turn left", j}}, {.columns =
//   8}));

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace minwm::eval {

struct SheetRow {
  std::string label;  ///< ASCII, e.g. "turn left"; may be empty
  at::Tensor frames;  ///< uint8 [F, H, W, 3]; F may differ from row to row, H and W may not
};

struct ContactSheetOptions {
  int64_t columns = 8;       ///< frames per row, evenly spaced, the first and the last included
  int64_t scale = 2;         ///< whole factor by which frames are enlarged
  bool smooth = true;        ///< bicubic; false shows the pixels as they are
  std::string caption = "";  ///< a line below the rows, ASCII; empty = none
};

/// uint8 [H, W, 3]: on a dark ground, each row's label left of its frames. A row with fewer frames
/// than columns shows all it has.
/// @throws Error naming the row: not a uint8 video, another size than the first row's; or no rows,
/// columns or scale below 1.
at::Tensor contact_sheet(const std::vector<SheetRow>& rows, const ContactSheetOptions& options);

/// All videos at once: uint8 [F, H, W, 3] with even H and W, tiles in rows of `options.columns`
/// with the label below each. F is the longest video's; shorter ones stay on their last frame.
/// @throws Error as contact_sheet does.
at::Tensor tiled_video(const std::vector<SheetRow>& rows, const ContactSheetOptions& options);

}  // namespace minwm::eval
