#include "server/core/trace_context.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace reticle::server {
namespace {

// version "-" trace-id "-" parent-id "-" trace-flags
constexpr size_t kVersion00Bytes = 55;
constexpr uint8_t kSampledFlag = 1;

uint64_t Random() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device(),
                       device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator();
}

// Lower case only, as the standard wants. -1: no such digit.
int Digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool ParseHex(std::string_view text, uint8_t* out) {
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    const int high = Digit(text[i]);
    const int low = Digit(text[i + 1]);
    if (high < 0 || low < 0) return false;
    out[i / 2] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

template <size_t kBytes>
bool IsZero(const std::array<uint8_t, kBytes>& id) {
  return id == std::array<uint8_t, kBytes>{};
}

}  // namespace

void AppendHex(const uint8_t* bytes, size_t size, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  for (size_t i = 0; i < size; ++i) {
    out.push_back(kHex[bytes[i] >> 4]);
    out.push_back(kHex[bytes[i] & 15]);
  }
}

std::string TraceContext::TraceIdHex() const {
  std::string out;
  AppendHex(trace_id.data(), trace_id.size(), out);
  return out;
}

std::string TraceContext::Traceparent() const {
  std::string out;
  out.reserve(kVersion00Bytes);
  out.append("00-");
  AppendHex(trace_id.data(), trace_id.size(), out);
  out.push_back('-');
  AppendHex(span_id.data(), span_id.size(), out);
  out.append(sampled ? "-01" : "-00");
  return out;
}

bool ParseTraceparent(std::string_view header, TraceContext& context) {
  if (header.size() < kVersion00Bytes) return false;
  if (header[2] != '-' || header[35] != '-' || header[52] != '-') return false;
  uint8_t version = 0;
  uint8_t flags = 0;
  TraceContext read;
  if (!ParseHex(header.substr(0, 2), &version) ||
      !ParseHex(header.substr(3, 32), read.trace_id.data()) ||
      !ParseHex(header.substr(36, 16), read.parent_id.data()) ||
      !ParseHex(header.substr(53, 2), &flags)) {
    return false;
  }
  // Later versions may have more behind another dash.
  if (version == 0xff || (version == 0 && header.size() != kVersion00Bytes) ||
      (header.size() > kVersion00Bytes && header[kVersion00Bytes] != '-')) {
    return false;
  }
  if (IsZero(read.trace_id) || IsZero(read.parent_id)) return false;
  context.trace_id = read.trace_id;
  context.parent_id = read.parent_id;
  context.sampled = (flags & kSampledFlag) != 0;
  return true;
}

TraceContext BeginTrace(std::string_view traceparent, double ratio) {
  TraceContext context;
  context.span_id = NewSpanId();
  if (ParseTraceparent(traceparent, context)) return context;
  const uint64_t low = Random();
  do {
    const uint64_t high = Random();
    std::memcpy(context.trace_id.data(), &high, sizeof(high));
    std::memcpy(context.trace_id.data() + sizeof(high), &low, sizeof(low));
  } while (IsZero(context.trace_id));
  context.sampled = static_cast<double>(low >> 11) * 0x1p-53 < ratio;
  return context;
}

std::array<uint8_t, 8> NewSpanId() {
  std::array<uint8_t, 8> id;
  do {
    const uint64_t drawn = Random();
    std::memcpy(id.data(), &drawn, sizeof(drawn));
  } while (IsZero(id));
  return id;
}

bool IsPlainRequestId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

std::string TakeRequestId(std::string_view offered) {
  if (IsPlainRequestId(offered)) return std::string(offered);
  const uint64_t drawn[] = {Random(), Random()};
  std::string id;
  AppendHex(reinterpret_cast<const uint8_t*>(drawn), sizeof(drawn), id);
  return id;
}

}  // namespace reticle::server
