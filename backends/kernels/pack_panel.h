// The quick way from a file's quantised blocks to a panel: words are moved, values are not taken
// apart. What it writes is bit for bit what PackPanels writes row by row.
#ifndef RETICLE_BACKENDS_KERNELS_PACK_PANEL_H_
#define RETICLE_BACKENDS_KERNELS_PACK_PANEL_H_

#include <cstddef>

#include "backends/kernels/packed_matrix.h"
#include "models/tensor_type.h"

namespace reticle::backends::kernels {

// Packs the kPanelRows rows of panel `panel`, which lie one behind the other at `rows`, into a
// matrix of format FormatOf(type). Returns false, the panel being undefined, for float types and
// when a scale is not finite. Different panels may be packed by different threads.
bool PackWholePanel(models::TensorType type, const std::byte* rows, size_t panel,
                    const PackedMatrix& matrix);

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_PACK_PANEL_H_
