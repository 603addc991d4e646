// A string of the template engine: UTF-8 bytes, each marked as trusted (written by the template or
// by us) or untrusted (came with the messages). Copies of parts keep the marks, so rendered output
// still tells which bytes a client wrote.
//
// A plain value: thread-safe as long as nobody changes it.
#ifndef RETICLE_TOKENIZER_JINJA_TEXT_H_
#define RETICLE_TOKENIZER_JINJA_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace reticle::tokenizer::jinja {

class Text {
 public:
  Text() = default;
  explicit Text(std::string bytes, bool untrusted = false) : bytes_(std::move(bytes)) {
    if (untrusted && !bytes_.empty()) marks_.push_back(0);
  }

  const std::string& str() const { return bytes_; }
  std::string_view view() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  bool has_untrusted() const { return !marks_.empty(); }
  // Whether this went through the filter `safe` or `escape`: adding another string escapes that one
  // for HTML, as in Jinja2 (its class Markup). Parts keep it.
  bool is_markup() const { return is_markup_; }
  void set_markup(bool is_markup) { is_markup_ = is_markup; }

  void Append(std::string_view bytes, bool untrusted = false);
  void Append(const Text& other) { Append(other, 0, other.size()); }
  // The bytes [pos, pos + size) of `other`; the range must lie within it. `other` may be this text.
  void Append(const Text& other, size_t pos, size_t size);
  Text Substr(size_t pos, size_t size) const;
  // All of it untrusted.
  void Taint();

  // Calls visit(std::string_view bytes, bool untrusted) for each run within [pos, pos + size), in
  // order; neighbours differ in their mark.
  template <typename Visitor>
  void ForEachRun(size_t pos, size_t size, Visitor visit) const;

 private:
  // Positions where the mark flips, ascending, all less than size(); bytes before the first one are
  // trusted.
  std::vector<size_t> marks_;
  std::string bytes_;
  bool is_markup_ = false;

  size_t FirstMarkAfter(size_t pos) const;
};

template <typename Visitor>
void Text::ForEachRun(size_t pos, size_t size, Visitor visit) const {
  const size_t end = pos + size;
  size_t mark = FirstMarkAfter(pos);
  while (pos < end) {
    size_t run_end = end;
    if (mark < marks_.size() && marks_[mark] < end) run_end = marks_[mark];
    visit(std::string_view(bytes_).substr(pos, run_end - pos), (mark & 1) != 0);
    pos = run_end;
    ++mark;
  }
}

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_TEXT_H_
