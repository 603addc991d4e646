#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

namespace reticle::tokenizer {

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special,
                                           bool at_text_start)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      adds_space_(tokenizer.adds_space_prefix()),
      strip_space_(at_text_start && adds_space_) {}

void StreamingDetokenizer::Append(TokenId token, std::string& out) {
  std::string_view bytes =
      skip_special_ ? tokenizer_.TokenBytes(token) : tokenizer_.TokenText(token);
  if (adds_space_) {
    if (tokenizer_.IsAdded(token)) {
      strip_space_ = true;
    } else if (strip_space_ && !bytes.empty()) {
      if (bytes.front() == ' ') bytes.remove_prefix(1);
      strip_space_ = false;
    }
  }
  AppendBytes(bytes, out);
}

void StreamingDetokenizer::Finish(std::string& out) {
  if (pending_size_ > 0) out.append(kReplacementUtf8);
  pending_size_ = 0;
}

void StreamingDetokenizer::AppendBytes(std::string_view bytes, std::string& out) {
  const char* p = bytes.data();
  const char* const end = p + bytes.size();
  while (pending_size_ > 0 && p < end) {
    pending_[pending_size_] = *p;
    const Utf8Char c = DecodeUtf8(pending_, pending_ + pending_size_ + 1);
    if (c.valid) {
      out.append(pending_, pending_size_ + 1);
      pending_size_ = 0;
      ++p;
    } else if (c.incomplete) {
      ++pending_size_;
      ++p;
    } else {
      out.append(kReplacementUtf8);
      pending_size_ = 0;
    }
  }
  const char* run = p;
  while (p < end) {
    if (static_cast<uint8_t>(*p) < 0x80) {
      ++p;
      continue;
    }
    const Utf8Char c = DecodeUtf8(p, end);
    if (!c.valid) {
      out.append(run, static_cast<size_t>(p - run));
      run = p + c.size;
      if (c.incomplete) {
        for (; p < end; ++p) pending_[pending_size_++] = *p;
        return;
      }
      out.append(kReplacementUtf8);
    }
    p += c.size;
  }
  out.append(run, static_cast<size_t>(end - run));
}

}  // namespace reticle::tokenizer
