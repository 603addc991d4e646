#include "loadtest/chunk_reader.h"

#include <cstring>

#include "loadtest/json_scanner.h"

namespace reticle::loadtest {
namespace {

void ReadUsage(JsonScanner& json, TokenUsage& usage) {
  if (json.Peek() == 'n') {
    json.Skip();
    return;
  }
  std::string_view key;
  usage.present = true;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key == "prompt_tokens") {
      json.Integer(usage.prompt_tokens);
    } else if (key == "completion_tokens") {
      json.Integer(usage.completion_tokens);
    } else if (key == "prompt_tokens_details" && json.Peek() == '{') {
      std::string_view detail;
      for (json.EnterObject(); json.NextKey(detail);) {
        if (detail == "cached_tokens" && json.Peek() != 'n') {
          json.Integer(usage.cached_tokens);
        } else {
          json.Skip();
        }
      }
    } else {
      json.Skip();
    }
  }
}

void ReadText(JsonScanner& json, Chunk& chunk) {
  if (json.Peek() != '"') {
    json.Skip();
    return;
  }
  std::string_view text;
  if (!json.String(text) || text.empty()) return;
  chunk.kind = Chunk::Kind::kText;
  if (chunk.text.empty()) chunk.text = text;
}

// A "delta" or a "message".
void ReadMessage(JsonScanner& json, Chunk& chunk) {
  if (json.Peek() != '{') {
    json.Skip();
    return;
  }
  std::string_view key;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key == "content" || key == "reasoning_content" || key == "reasoning") {
      ReadText(json, chunk);
    } else if (key == "tool_calls" && json.Peek() == '[') {
      const size_t begin = json.position();
      json.Skip();
      if (json.position() - begin > 2) chunk.kind = Chunk::Kind::kText;
    } else {
      json.Skip();
    }
  }
}

void ReadChoice(JsonScanner& json, Chunk& chunk) {
  std::string_view key;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key == "delta" || key == "message") {
      ReadMessage(json, chunk);
    } else if (key == "text") {
      ReadText(json, chunk);
    } else if (key == "finish_reason" && json.Peek() == '"') {
      std::string_view reason;
      json.String(reason);
      chunk.finish = reason == "stop"     ? FinishReason::kStop
                     : reason == "length" ? FinishReason::kLength
                                          : FinishReason::kOther;
    } else {
      json.Skip();
    }
  }
}

void ReadError(JsonScanner& json, Chunk& chunk) {
  chunk.kind = Chunk::Kind::kError;
  if (json.Peek() == '"') {
    json.String(chunk.error_message);
    return;
  }
  if (json.Peek() != '{') {
    json.Skip();
    return;
  }
  std::string_view key;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key == "message" && json.Peek() == '"') {
      json.String(chunk.error_message);
    } else {
      json.Skip();
    }
  }
}

Chunk ReadObject(std::string_view payload) {
  Chunk chunk;
  JsonScanner json(payload);
  std::string_view key;
  bool error = false;
  bool known = false;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key == "choices" && json.Peek() == '[') {
      known = true;
      for (json.EnterArray(); json.NextElement();) ReadChoice(json, chunk);
    } else if (key == "usage") {
      ReadUsage(json, chunk.usage);
    } else if (key == "error" && json.Peek() != 'n') {
      error = true;
      ReadError(json, chunk);
    } else {
      json.Skip();
    }
  }
  if (error) {
    chunk.kind = Chunk::Kind::kError;
  } else if (!json.AtEnd() || (!known && !chunk.usage.present)) {
    chunk.kind = Chunk::Kind::kMalformed;
  }
  return chunk;
}

}  // namespace

Chunk ChunkReader::Read(std::string_view payload) {
  if (!head_.empty() && payload.size() >= head_.size() + tail_.size() &&
      std::memcmp(payload.data(), head_.data(), head_.size()) == 0 && payload.ends_with(tail_)) {
    const std::string_view text =
        payload.substr(head_.size(), payload.size() - head_.size() - tail_.size());
    bool plain = !text.empty();
    for (const char c : text) {
      plain = plain && c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20;
    }
    if (plain) {
      Chunk chunk;
      chunk.kind = Chunk::Kind::kText;
      chunk.text = text;
      return chunk;
    }
  }
  if (payload == "[DONE]") {
    Chunk chunk;
    chunk.kind = Chunk::Kind::kDone;
    return chunk;
  }
  Chunk chunk = ReadObject(payload);
  if (chunk.kind == Chunk::Kind::kText && !chunk.text.empty() && !chunk.usage.present &&
      chunk.finish == FinishReason::kNone) {
    const size_t begin = static_cast<size_t>(chunk.text.data() - payload.data());
    const size_t end = begin + chunk.text.size();
    // Only an event with one choice is a pattern: another text would hide in the head or the tail.
    JsonScanner json(payload);
    std::string_view key;
    size_t choices = 0;
    for (json.EnterObject(); json.NextKey(key);) {
      if (key != "choices") {
        json.Skip();
        continue;
      }
      for (json.EnterArray(); json.NextElement(); ++choices) json.Skip();
    }
    if (choices == 1) {
      head_.assign(payload.substr(0, begin));
      tail_.assign(payload.substr(end));
    }
  }
  return chunk;
}

Chunk ReadWholeReply(std::string_view body) { return ReadObject(body); }

}  // namespace reticle::loadtest
