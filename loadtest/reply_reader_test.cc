#include "loadtest/reply_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "loadtest/distribution.h"
#include "loadtest/json_scanner.h"
#include "loadtest/null_reply.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr char kHead[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

std::string Chunked(std::string_view body, size_t size) {
  std::string out;
  while (!body.empty()) {
    const std::string_view part = body.substr(0, size);
    out += absl::StrFormat("%x\r\n%s\r\n", part.size(), part);
    body.remove_prefix(part.size());
  }
  return out + "0\r\n\r\n";
}

std::string ChatEvent(std::string_view delta, std::string_view finish = "null") {
  return absl::StrFormat(
      "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,"
      "\"delta\":%s,\"logprobs\":null,\"finish_reason\":%s}],\"usage\":null}\n\n",
      delta, finish);
}

const std::string kStream =
    ChatEvent(R"({"role":"assistant","content":""})") + ChatEvent(R"({"content":"Hel"})") +
    ChatEvent(R"({"content":"lo \"you\" \u00e9\ud83d\ude00\\"})") + ChatEvent(R"({"content":""})") +
    ": a comment\n\n" + ChatEvent(R"({"content":" there"})") + ChatEvent("{}", "\"length\"") +
    "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":5,"
    "\"prompt_tokens_details\":{\"cached_tokens\":3},\"reticle\":{\"queue_ms\":1.5}}}\n\n"
    "data: [DONE]\n\n";

struct Read {
  Request request;
  ReplyReader::Result result = ReplyReader::Result::kMore;
};

// Feeds `wire` in the pieces that `next_size` gives, and the end when it is not over then.
template <typename NextSize>
void Feed(std::string_view wire, NextSize next_size, Read& read, ReplyReader& reader) {
  static Recorder recorder(Recorder::Options{});  // large; what it holds does not matter here
  reader.Begin(read.request);
  int64_t now_ns = 0;
  read.result = ReplyReader::Result::kMore;
  while (!wire.empty() && read.result == ReplyReader::Result::kMore) {
    const std::string piece(wire.substr(0, next_size()));
    wire.remove_prefix(piece.size());
    read.result = reader.Feed(piece, ++now_ns, recorder);
  }
  if (read.result == ReplyReader::Result::kMore) reader.FeedEnd(++now_ns, recorder);
}

Read ReadAll(std::string_view wire, size_t piece, bool stream = true) {
  Read read;
  read.request.stream = stream;
  read.request.keep_text = true;
  ReplyReader reader;
  Feed(
      wire, [piece] { return piece; }, read, reader);
  return read;
}

void ExpectTheStream(const Outcome& outcome) {
  EXPECT_EQ(outcome.error, ErrorKind::kNone) << outcome.message;
  EXPECT_EQ(outcome.events, 3);
  EXPECT_EQ(outcome.text, "Hello \"you\" \xc3\xa9\xf0\x9f\x98\x80\\ there");
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
  EXPECT_TRUE(outcome.usage.present);
  EXPECT_EQ(outcome.usage.prompt_tokens, 8);
  EXPECT_EQ(outcome.usage.completion_tokens, 5);
  EXPECT_EQ(outcome.usage.cached_tokens, 3);
}

TEST(ReplyReaderTest, PiecesOfAnySizeGiveTheSame) {
  const std::string wire = kHead + Chunked(kStream, 200);
  for (size_t piece = 1; piece <= wire.size(); ++piece) {
    const Read read = ReadAll(wire, piece);
    EXPECT_EQ(read.result, ReplyReader::Result::kDone) << piece;
    ExpectTheStream(read.request.outcome);
    if (HasFailure()) FAIL() << "pieces of " << piece;
  }
}

TEST(ReplyReaderTest, ChunksAndLineEndsOfAnyKindGiveTheSame) {
  std::string crlf;
  for (const char c : kStream) {
    if (c == '\n') crlf.push_back('\r');
    crlf.push_back(c);
  }
  Random random(11);
  for (int round = 0; round < 400; ++round) {
    const std::string wire = kHead + Chunked(round % 2 == 0 ? kStream : crlf,
                                             static_cast<size_t>(random.Integer(1, 400)));
    Read read;
    read.request.keep_text = true;
    ReplyReader reader;
    Feed(
        wire, [&] { return static_cast<size_t>(random.Integer(1, 60)); }, read, reader);
    ExpectTheStream(read.request.outcome);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

TEST(ReplyReaderTest, OneReaderTakesRepliesOneAfterTheOther) {
  ReplyReader reader;
  const std::string wire = kHead + Chunked(kStream, 90);
  for (int i = 0; i < 3; ++i) {
    Read read;
    read.request.keep_text = true;
    Feed(
        wire, [] { return size_t{37}; }, read, reader);
    EXPECT_EQ(read.result, ReplyReader::Result::kDone);
    ExpectTheStream(read.request.outcome);
  }
}

TEST(ReplyReaderTest, CutAnywhereItIsNoSuccess) {
  const std::string wire = kHead + Chunked(kStream, 200);
  const size_t done = wire.find("[DONE]\n\n") + 8;
  for (size_t size = 0; size < done; ++size) {
    const Read read = ReadAll(std::string_view(wire).substr(0, size), 64);
    EXPECT_NE(read.request.outcome.error, ErrorKind::kNone) << size;
    EXPECT_GT(read.request.outcome.end_ns, 0) << size;
  }
  // Behind [DONE] only framing is missing.
  EXPECT_EQ(ReadAll(std::string_view(wire).substr(0, done), 64).request.outcome.error,
            ErrorKind::kNone);
}

TEST(ReplyReaderTest, ReadsTheNullServersBytes) {
  for (const bool chat : {true, false}) {
    const NullReplies replies("m", 1, chat, true);
    NullRequest asked{.chat = chat, .stream = true, .include_usage = true, .max_tokens = 200};
    std::string wire;
    replies.AppendStreamHead(wire);
    replies.AppendEvents(wire, 130, true);
    for (int i = 0; i < 70; ++i) replies.AppendEvents(wire, 1, false);
    replies.AppendStreamEnd(wire, asked);
    const Read read = ReadAll(wire, 1000);
    EXPECT_EQ(read.result, ReplyReader::Result::kDone);
    EXPECT_EQ(read.request.outcome.error, ErrorKind::kNone) << read.request.outcome.message;
    EXPECT_EQ(read.request.outcome.events, 200);
    EXPECT_EQ(read.request.outcome.usage.completion_tokens, 200);
    EXPECT_EQ(read.request.outcome.finish, FinishReason::kLength);
    EXPECT_EQ(read.request.outcome.text.size(), 200 * std::string(" token").size());

    wire.clear();
    asked.stream = false;
    asked.max_tokens = 3;
    replies.AppendWhole(wire, asked);
    const Read whole = ReadAll(wire, 7, false);
    EXPECT_EQ(whole.result, ReplyReader::Result::kDone);
    EXPECT_EQ(whole.request.outcome.text, " token token token");
    EXPECT_EQ(whole.request.outcome.usage.completion_tokens, 3);
  }
}

TEST(ReplyReaderTest, StatusesKeepTheServersWords) {
  const std::string body = R"({"error":{"message":"queue is \"full\"","type":"x"}})";
  const Read read = ReadAll(absl::StrFormat("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\n"
                                            "Content-Length: %d\r\n\r\n%s",
                                            body.size(), body),
                            5);
  EXPECT_EQ(read.result, ReplyReader::Result::kDone);
  EXPECT_EQ(read.request.outcome.error, ErrorKind::kHttpStatus);
  EXPECT_EQ(read.request.outcome.code, 429);
  EXPECT_EQ(read.request.outcome.retry_after_s, 2);
  EXPECT_EQ(read.request.outcome.message, R"(queue is \"full\")");
  EXPECT_TRUE(IsRejection(read.request.outcome));
  EXPECT_EQ(ReadAll("HTTP/1.1 500 No\r\n\r\n<html>", 9).request.outcome.code, 500);
}

TEST(ReplyReaderTest, AnErrorEventEndsTheStream) {
  const std::string body = ChatEvent(R"({"content":"a"})") +
                           "data: {\"error\":{\"message\":\"deadline\",\"code\":null}}\n\n";
  const Read read = ReadAll(kHead + Chunked(body, 1000), 100);
  EXPECT_EQ(read.result, ReplyReader::Result::kDoneClose);
  EXPECT_EQ(read.request.outcome.error, ErrorKind::kErrorEvent);
  EXPECT_EQ(read.request.outcome.message, "deadline");
  EXPECT_EQ(read.request.outcome.events, 1);
}

TEST(ReplyReaderTest, TellsMalformedRepliesFromCutOnes) {
  const auto kind = [](const std::string& wire) { return ReadAll(wire, 16).request.outcome.error; };
  EXPECT_EQ(kind("SSH-2.0-OpenSSH_9.2\r\n\r\n"), ErrorKind::kMalformed);
  EXPECT_EQ(kind("HTTP/1.1 abc\r\n\r\n"), ErrorKind::kMalformed);
  EXPECT_EQ(kind("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), ErrorKind::kMalformed);
  EXPECT_EQ(kind(std::string(kHead) + "zz\r\n"), ErrorKind::kMalformed);
  EXPECT_EQ(kind(std::string(kHead) + "\r\n"), ErrorKind::kMalformed);
  EXPECT_EQ(kind(kHead + Chunked("data: {\"choices\":[{]}\n\n", 99)), ErrorKind::kMalformed);
  EXPECT_EQ(kind(kHead + Chunked("data: nonsense\n\n", 99)), ErrorKind::kMalformed);
  EXPECT_EQ(kind(kHead + Chunked("data: {\"hello\":1}\n\n", 99)), ErrorKind::kMalformed);
  EXPECT_EQ(kind("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope"), ErrorKind::kMalformed);
  EXPECT_EQ(kind(""), ErrorKind::kClosed);
  EXPECT_EQ(kind("HTTP/1.1 200 OK\r\n"), ErrorKind::kClosed);
  EXPECT_EQ(kind(kHead + Chunked(ChatEvent(R"({"content":"a"})"), 99)), ErrorKind::kClosed);
}

TEST(ReplyReaderTest, LeavesAfterAsManyEventsAsItShould) {
  Read read;
  read.request.disconnect_after_events = 2;
  ReplyReader reader;
  Feed(
      kHead + Chunked(kStream, 5000), [] { return size_t{5000}; }, read, reader);
  EXPECT_EQ(read.result, ReplyReader::Result::kDoneClose);
  EXPECT_TRUE(read.request.outcome.disconnected);
  EXPECT_EQ(read.request.outcome.events, 2);
  EXPECT_EQ(read.request.outcome.error, ErrorKind::kNone);
}

TEST(ReplyReaderTest, BodiesMayEndWithTheConnection) {
  const std::string wire = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + kStream;
  const Read read = ReadAll(wire, 50);
  EXPECT_EQ(read.result, ReplyReader::Result::kMore);
  ExpectTheStream(read.request.outcome);
}

TEST(ReplyReaderTest, InterimResponsesAreSkippedAndCloseIsHeard) {
  const std::string wire =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nconnection: Close\r\n"
      "content-type: Text/Event-Stream\r\ntransfer-encoding: Chunked\r\n\r\n" +
      Chunked(kStream, 33);
  const Read read = ReadAll(wire, 10);
  EXPECT_EQ(read.result, ReplyReader::Result::kDoneClose);
  ExpectTheStream(read.request.outcome);
}

TEST(ReplyReaderTest, DamagedBytesNeverCrashAndNeverInventEvents) {
  const std::string wire = kHead + Chunked(kStream, 120);
  Random random(99);
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = wire;
    const int64_t edits = random.Integer(1, 4);
    for (int64_t e = 0; e < edits; ++e) {
      const size_t at =
          static_cast<size_t>(random.Integer(0, static_cast<int64_t>(damaged.size()) - 1));
      switch (random.Integer(0, 2)) {
        case 0:
          damaged[at] = static_cast<char>(random.Integer(0, 255));
          break;
        case 1:
          damaged.erase(at, static_cast<size_t>(random.Integer(1, 9)));
          break;
        default:
          damaged.insert(at, damaged, at / 2, 7);
          break;
      }
      if (damaged.empty()) damaged = "x";
    }
    Read read;
    read.request.keep_text = true;
    ReplyReader reader;
    Feed(
        damaged, [&] { return static_cast<size_t>(random.Integer(1, 300)); }, read, reader);
    EXPECT_LE(read.request.outcome.events, 6) << round;
    EXPECT_GT(read.request.outcome.end_ns, 0) << round;
  }
}

TEST(ChunkReaderTest, ALearnedPatternGivesWhatAFullReadGives) {
  const std::vector<std::string> deltas = {R"({"content":"a"})",       R"({"content":"b\n"})",
                                           R"({"content":""})",        R"({"content":"\""})",
                                           R"({"content":null})",      R"({"content":"x"},"y":"z")",
                                           R"({"content":"a\\"})",     R"({})",
                                           R"({"content":"c","z":1})", R"({"reasoning":"r"})"};
  Random random(4);
  ChunkReader learned;
  for (int round = 0; round < 5000; ++round) {
    const size_t which =
        static_cast<size_t>(random.Integer(0, static_cast<int64_t>(deltas.size()) - 1));
    const std::string event =
        ChatEvent(deltas[which], random.Integer(0, 5) == 0 ? "\"stop\"" : "null");
    const std::string_view payload = std::string_view(event).substr(6, event.size() - 8);
    const Chunk fast = learned.Read(payload);
    const Chunk full = ChunkReader().Read(payload);
    ASSERT_EQ(fast.kind, full.kind) << payload;
    ASSERT_EQ(fast.text, full.text) << payload;
    ASSERT_EQ(fast.finish, full.finish) << payload;
  }
}

TEST(ChunkReaderTest, SeveralChoicesAreNoPattern) {
  const std::string two =
      R"({"choices":[{"index":0,"text":"a","finish_reason":null},{"index":1,"text":"b",)"
      R"("finish_reason":null}]})";
  ChunkReader reader;
  EXPECT_EQ(reader.Read(two).text, "a");
  EXPECT_EQ(reader.Read(two).kind, Chunk::Kind::kText);
}

TEST(ChunkReaderTest, ToolCallsAreText) {
  EXPECT_EQ(ReadWholeReply(R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})").kind,
            Chunk::Kind::kText);
  EXPECT_EQ(ReadWholeReply(R"({"choices":[{"delta":{"tool_calls":[]}}]})").kind,
            Chunk::Kind::kOther);
}

TEST(JsonScannerTest, AcceptsJsonAndNothingElse) {
  const auto valid = [](std::string_view text) {
    JsonScanner json(text);
    json.Skip();
    return json.AtEnd();
  };
  for (const char* text : {"{}", "[]", "1", "-0.5e+3", "\"a\\\"\\u00e9\"", " [1, 2 ,{\"a\":[[]]}] ",
                           "true", "null", "[[],[],{}]", "{\"a\":{},\"b\":[1]}"}) {
    EXPECT_TRUE(valid(text)) << text;
  }
  for (const char* text : {"", "{", "}", "[1,]x", "[1 2]", "{\"a\"}", "{\"a\":}", "{a:1}", "tru",
                           "\"a", "\"a\\", "1.", "-", "[1]]", "{\"a\":1,,\"b\":2}", "\"\n\""}) {
    EXPECT_FALSE(valid(text)) << text;
  }
  EXPECT_FALSE(valid(std::string(100, '[') + std::string(100, ']')));
}

TEST(TextTest, JsonStringsGoBothWays) {
  const std::string text = "a\"\\\n\t\x01 \xc3\xa9 \xf0\x9f\x98\x80";
  std::string json;
  AppendJsonString(json, text);
  std::string back;
  AppendJsonUnescaped(back, std::string_view(json).substr(1, json.size() - 2));
  EXPECT_EQ(back, text);
  json.clear();
  AppendJsonString(json, "\xff\xc3");
  EXPECT_EQ(json, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
  back.clear();
  AppendJsonUnescaped(back, R"(\ud800x\u12)");
  EXPECT_EQ(back, "\xef\xbf\xbdx12");
}

TEST(TextTest, DurationsHaveUnits) {
  EXPECT_EQ(*ParseDurationNs("250us"), 250'000);
  EXPECT_EQ(*ParseDurationNs("1.5s"), 1'500'000'000);
  EXPECT_EQ(*ParseDurationNs("2m"), 120'000'000'000);
  EXPECT_EQ(*ParseDurationNs("3"), 3'000'000'000);
  for (const char* text : {"", "ms", "-1s", "1 s", "1d", "nan", "1e30s"}) {
    EXPECT_FALSE(ParseDurationNs(text).ok()) << text;
  }
}

}  // namespace
}  // namespace reticle::loadtest
