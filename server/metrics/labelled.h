// Values of one metric by their labels: found under a short lock, read without one.
#ifndef RETICLE_SERVER_METRICS_LABELLED_H_
#define RETICLE_SERVER_METRICS_LABELLED_H_

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace reticle::server {

// T must be safe to change and to read by several threads at once. Values are never removed, so
// whoever makes them bounds the label values. Thread-safe; allocates for new label values only.
template <typename T>
class Labelled {
 public:
  explicit Labelled(std::function<std::unique_ptr<T>()> make = [] { return std::make_unique<T>(); })
      : make_(std::move(make)) {}

  // The value with these label values, made when it is not there; lives as long as this.
  T& Of(std::initializer_list<std::string_view> labels) {
    MutexLock lock(mutex_);
    const auto found = values_.find(labels);
    if (found != values_.end()) return *found->second;
    return *values_.emplace(Key(labels.begin(), labels.end()), make_()).first->second;
  }

  // Calls visit(const std::vector<std::string>& labels, const T& value) for each, without the lock.
  template <typename Visitor>
  void Each(Visitor&& visit) const {
    std::vector<std::pair<const Key*, const T*>> all;
    {
      MutexLock lock(mutex_);
      all.reserve(values_.size());
      for (const auto& [key, value] : values_) all.emplace_back(&key, value.get());
    }
    for (const auto& [key, value] : all) visit(*key, *value);
  }

 private:
  using Key = std::vector<std::string>;
  struct Before {
    using is_transparent = void;
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return std::lexicographical_compare(
          a.begin(), a.end(), b.begin(), b.end(),
          [](std::string_view x, std::string_view y) { return x < y; });
    }
  };

  const std::function<std::unique_ptr<T>()> make_;
  mutable Mutex mutex_;
  std::map<Key, std::unique_ptr<T>, Before> values_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_LABELLED_H_
