#include "loadtest/sse_reader.h"

namespace reticle::loadtest {

bool SseReader::TakeLine(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return has_data_;
  if (!line.starts_with("data") || (line.size() > 4 && line[4] != ':')) return false;
  line.remove_prefix(line.size() > 4 ? 5 : 4);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (has_data_) {
    data_.push_back('\n');
  } else {
    data_.clear();
  }
  data_.append(line);
  has_data_ = true;
  failed_ = data_.size() > kMaxEventBytes;
  return false;
}

}  // namespace reticle::loadtest
