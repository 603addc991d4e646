// A pull reader of JSON text that is already in memory: no document, no allocation.
//
//   JsonScanner json(text);
//   std::string_view key;
//   for (json.EnterObject(); json.NextKey(key);) {
//     if (key == "usage") { ... } else { json.Skip(); }
//   }
//   if (!json.AtEnd()) ...  // not one well-formed value
#ifndef RETICLE_LOADTEST_JSON_SCANNER_H_
#define RETICLE_LOADTEST_JSON_SCANNER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace reticle::loadtest {

// Every method reads one thing at the cursor. After the first thing that is not as asked the
// scanner has failed for good: all methods return false. `text` must outlive it. Keys and strings
// come as they stand, with their escapes. Nesting is limited to 64 levels.
class JsonScanner {
 public:
  explicit JsonScanner(std::string_view text) : text_(text) {}

  bool ok() const { return ok_; }
  // Nothing but white space follows, and nothing failed.
  bool AtEnd();
  // The first byte of the next value, '\0' at the end.
  char Peek();
  size_t position() const { return at_; }

  bool EnterObject() { return Enter('{'); }
  // The next member's key, with the cursor on its value; false behind the last one.
  bool NextKey(std::string_view& key);
  bool EnterArray() { return Enter('['); }
  // The cursor is on the next element; false behind the last one.
  bool NextElement();

  bool String(std::string_view& inside);
  // A number without fraction and exponent.
  bool Integer(int64_t& value);
  // Any value, checked for its form.
  bool Skip();

 private:
  bool Enter(char bracket);
  bool Fail() {
    ok_ = false;
    return false;
  }
  void SkipSpace();
  bool Literal(std::string_view word);
  bool Number();

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  uint64_t first_ = 0;   // bit d: nothing was read yet at depth d
  uint64_t object_ = 0;  // bit d: depth d is an object
  bool ok_ = true;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_JSON_SCANNER_H_
