#include "tokenizer/jinja/text.h"

#include <algorithm>

namespace reticle::tokenizer::jinja {

size_t Text::FirstMarkAfter(size_t pos) const {
  if (marks_.empty()) return 0;
  return static_cast<size_t>(std::upper_bound(marks_.begin(), marks_.end(), pos) - marks_.begin());
}

void Text::Append(std::string_view bytes, bool untrusted) {
  if (bytes.empty()) return;
  const bool last_is_untrusted = (marks_.size() & 1) != 0;
  if (last_is_untrusted != untrusted) marks_.push_back(bytes_.size());
  bytes_.append(bytes);
}

void Text::Append(const Text& other, size_t pos, size_t size) {
  if (&other == this) {
    const Text copy = Substr(pos, size);
    Append(copy, 0, copy.size());
    return;
  }
  other.ForEachRun(pos, size,
                   [this](std::string_view run, bool untrusted) { Append(run, untrusted); });
}

Text Text::Substr(size_t pos, size_t size) const {
  Text part;
  part.bytes_.reserve(size);
  part.is_markup_ = is_markup_;
  part.Append(*this, pos, size);
  return part;
}

void Text::Taint() {
  marks_.clear();
  if (!bytes_.empty()) marks_.push_back(0);
}

}  // namespace reticle::tokenizer::jinja
