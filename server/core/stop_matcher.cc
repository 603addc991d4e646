#include "server/core/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace reticle::server {

StopSet::StopSet(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& text : strings_) {
    std::vector<uint32_t> failure(text.size() + 1, 0);
    uint32_t border = 0;
    for (size_t i = 1; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) border = failure[border];
      if (text[i] == text[border]) ++border;
      failure[i + 1] = border;
    }
    failure_.push_back(std::move(failure));
  }
}

StopMatcher::Result StopMatcher::Feed(std::string_view piece) {
  Result result;
  const size_t count = set_.strings_.size();
  if (count > 0) {
    for (size_t i = 0; i < piece.size() && !result.matched; ++i) {
      size_t longest = 0;
      for (size_t s = 0; s < count; ++s) {
        const std::string& text = set_.strings_[s];
        uint32_t state = states_[s];
        while (state > 0 && text[state] != piece[i]) state = set_.failure_[s][state];
        if (text[state] == piece[i]) ++state;
        if (state == text.size() && text.size() > longest) {
          longest = text.size();
          result = {.matched = true, .end = i + 1, .index = s};
        }
        states_[s] = state == text.size() ? set_.failure_[s][state] : state;
      }
    }
  }
  if (!result.matched) result.end = piece.size();
  held_ = 0;
  for (uint32_t state : states_) held_ = std::max<size_t>(held_, state);
  return result;
}

void StopMatcher::Reset() {
  std::fill(states_.begin(), states_.end(), 0);
  held_ = 0;
}

}  // namespace reticle::server
