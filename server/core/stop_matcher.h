// Finds stop strings in text that arrives in pieces, holding back only what may still become one.
#ifndef RETICLE_SERVER_CORE_STOP_MATCHER_H_
#define RETICLE_SERVER_CORE_STOP_MATCHER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace reticle::server {

// The stop strings of one request, prepared once and shared by its choices. Immutable.
class StopSet {
 public:
  StopSet() = default;
  // No string may be empty.
  explicit StopSet(std::vector<std::string> strings);
  bool empty() const { return strings_.empty(); }
  const std::vector<std::string>& strings() const { return strings_; }

 private:
  friend class StopMatcher;
  std::vector<std::string> strings_;
  // failure_[s][k]: length of the longest proper border of the first k bytes of string s (Knuth,
  // Morris and Pratt).
  std::vector<std::vector<uint32_t>> failure_;
};

// The state of one choice. The first string to be complete wins; of two that are complete at the
// same byte, the longer. Results do not depend on how the text is cut. Not thread-safe.
class StopMatcher {
 public:
  // `set` must outlive this.
  explicit StopMatcher(const StopSet& set) : set_(set), states_(set.strings_.size(), 0) {}

  struct Result {
    bool matched = false;
    size_t end = 0;    // bytes of the piece up to and including the match; all of it without one
    size_t index = 0;  // of the string
  };
  // Advances over `piece`, up to the end of the first match.
  Result Feed(std::string_view piece);
  // Bytes at the end of what was fed that may be the beginning of a stop string.
  size_t held() const { return held_; }
  // Forgets the partial matches.
  void Reset();

 private:
  const StopSet& set_;
  std::vector<uint32_t> states_;  // matched prefix of each string
  size_t held_ = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_STOP_MATCHER_H_
