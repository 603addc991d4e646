#include "server/cli/chat_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/cli/chat.h"
#include "server/cli/chat_client.h"

namespace reticle::server::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Kind = ChatCommand::Kind;

TEST(ChatCommandTest, NamesAndArguments) {
  EXPECT_EQ(ParseChatCommand("/help")->kind, Kind::kHelp);
  EXPECT_EQ(ParseChatCommand("  /exit  ")->kind, Kind::kExit);
  EXPECT_EQ(ParseChatCommand("/quit")->kind, Kind::kExit);
  EXPECT_EQ(ParseChatCommand("/reset")->kind, Kind::kReset);
  EXPECT_EQ(ParseChatCommand("/models")->kind, Kind::kModels);
  const auto system = ParseChatCommand("/system  Be brief. \r");
  EXPECT_EQ(system->kind, Kind::kSystem);
  EXPECT_EQ(system->argument, "Be brief.");
  EXPECT_EQ(ParseChatCommand("/stats off")->argument, "off");
  for (const char* line : {"/", "/nothing", "/setx", "/stats", "/stats maybe", "help", ""}) {
    EXPECT_FALSE(ParseChatCommand(line).ok()) << line;
  }
}

TEST(ChatSessionTest, RequestHoldsTheConversation) {
  ChatSession session;
  EXPECT_EQ(session.RequestBody("Hi \"you\""),
            R"({"stream":true,"stream_options":{"include_usage":true},"messages":[)"
            R"({"role":"user","content":"Hi \"you\""}]})");
  session.model = "house";
  session.system = "Be brief.";
  session.Remember("One", "Two");
  ASSERT_TRUE(session.Set("temperature 0.25").ok());
  ASSERT_TRUE(session.Set("max_tokens=9").ok());
  ASSERT_TRUE(session.Set("seed -3").ok());
  EXPECT_EQ(session.RequestBody("Three"),
            R"({"model":"house","stream":true,"stream_options":{"include_usage":true},"messages":[)"
            R"({"role":"system","content":"Be brief."},{"role":"user","content":"One"},)"
            R"({"role":"assistant","content":"Two"},{"role":"user","content":"Three"}],)"
            R"("temperature":0.25,"max_tokens":9,"seed":-3})");
  session.Reset();
  EXPECT_EQ(session.turns(), 0u);
  EXPECT_THAT(session.RequestBody("x"), testing::Not(HasSubstr("Two")));
}

TEST(ChatSessionTest, SettingsNameTheirLimits) {
  ChatSession session;
  EXPECT_THAT(session.Set("temperature 3").message(), HasSubstr("0 to 2"));
  EXPECT_THAT(session.Set("temperature nan").message(), HasSubstr("temperature"));
  EXPECT_THAT(session.Set("top_k 1.5").message(), HasSubstr("whole number"));
  EXPECT_THAT(session.Set("max_tokens 0").message(), HasSubstr("at least 1"));
  EXPECT_THAT(session.Set("speed 9").message(), HasSubstr("no setting \"speed\""));
  EXPECT_FALSE(session.Set("seed").ok());
  ASSERT_TRUE(session.Set("top_p 0.5").ok());
  EXPECT_THAT(session.DescribeSettings(), HasSubstr("top_p        0.5\n"));
  ASSERT_TRUE(session.Set("top_p default").ok());
  EXPECT_THAT(session.DescribeSettings(), HasSubstr("top_p        default\n"));
}

TEST(ChatEventTest, TextUsageAndErrors) {
  EXPECT_TRUE(ParseChatEvent("[DONE]")->done);
  const auto piece =
      ParseChatEvent(R"({"choices":[{"delta":{"content":"h\u00e9"}}],"usage":null})");
  EXPECT_EQ(piece->text, "h\xc3\xa9");
  EXPECT_FALSE(piece->completion_tokens.has_value());
  EXPECT_EQ(ParseChatEvent(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})")->finish, "stop");
  const auto usage = ParseChatEvent(
      R"({"choices":[],"usage":{"completion_tokens":7,"reticle":{"completion_ms":0.5}}})");
  EXPECT_EQ(usage->completion_tokens, 7);
  EXPECT_EQ(usage->completion_ms, 0.5);
  const auto error = ParseChatEvent(R"({"error":{"message":"gone"}})");
  EXPECT_EQ(error.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(error.status().message(), "gone");
  for (const char* data : {"", "{", "[]", "7", "\"x\""}) {
    EXPECT_EQ(ParseChatEvent(data).status().code(), absl::StatusCode::kInvalidArgument) << data;
  }
  EXPECT_TRUE(ParseChatEvent("{}")->text.empty());
}

TEST(ChatEventTest, MessagesOfErrorReplies) {
  EXPECT_EQ(ErrorMessageOf(R"({"error":{"message":"a"}})"), "a");
  EXPECT_EQ(ErrorMessageOf(R"({"error":"b"})"), "b");
  EXPECT_EQ(ErrorMessageOf(R"({"detail":"c"})"), "c");
  EXPECT_EQ(ErrorMessageOf("<html>"), "");
  EXPECT_THAT(*ParseModelList(R"({"data":[{"id":"a"},{},{"id":"b"}]})"), ElementsAre("a", "b"));
  EXPECT_FALSE(ParseModelList("{}").ok());
}

std::vector<std::string> ReadCut(std::string_view bytes, size_t step) {
  SseReader reader;
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size(); at += step) {
    const absl::Status status = reader.Push(bytes.substr(at, step), [&](std::string_view data) {
      events.emplace_back(data);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok());
  }
  return events;
}

TEST(SseReaderTest, TheSameForEveryCut) {
  const std::string bytes =
      ": hello\n\ndata: one\r\n\r\nevent: x\ndata:two\ndata: three\n\ndata\n\rdata: four\r\r"
      "datax: no\n\nid: 5\n\ndata: not yet";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    EXPECT_THAT(ReadCut(bytes, step), ElementsAre("one", "two\nthree", "", "four")) << step;
  }
}

TEST(SseReaderTest, StopsAtAnErrorAndBoundsAnEvent) {
  SseReader reader;
  int seen = 0;
  const absl::Status status = reader.Push("data: a\n\ndata: b\n\n", [&](std::string_view) {
    ++seen;
    return absl::CancelledError("enough");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(seen, 1);
  SseReader greedy;
  const std::string block(size_t{9} << 20, 'x');
  const auto ignore = [](std::string_view) { return absl::OkStatus(); };
  EXPECT_TRUE(greedy.Push("data: " + block, ignore).ok());
  EXPECT_EQ(greedy.Push(block, ignore).code(), absl::StatusCode::kResourceExhausted);
}

TEST(PlainTextTest, NothingThatCommandsATerminal) {
  EXPECT_EQ(PlainText("a\033[2Jb\a\tc\n\r\x7f"), "a[2Jb\tc\n");
  EXPECT_EQ(PlainText("\xc2\x9b"
                      "31m"),
            "31m");
  EXPECT_EQ(PlainText("h\xc3\xa9\xc2\xa0\xe2\x82\xac"), "h\xc3\xa9\xc2\xa0\xe2\x82\xac");
}

TEST(ChatUrlTest, PartsAndMistakes) {
  const auto plain = ParseChatUrl("http://localhost:8080/v1/");
  EXPECT_EQ(plain->host, "localhost");
  EXPECT_EQ(plain->port, "8080");
  EXPECT_EQ(plain->path, "");
  EXPECT_FALSE(plain->tls);
  const auto tls = ParseChatUrl("https://api.example/base/v1");
  EXPECT_TRUE(tls->tls);
  EXPECT_EQ(tls->port, "443");
  EXPECT_EQ(tls->path, "/base");
  const auto v6 = ParseChatUrl("[::1]:81");
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, "81");
  for (const char* url : {"", "ftp://x", "http://", "http://x:0", "http://x:70000", "http://x:a",
                          "http://[::1", "http://a b", "http://u@h", "http://x?y"}) {
    EXPECT_FALSE(ParseChatUrl(url).ok()) << url;
  }
}

TEST(ChatArgumentsTest, MistakesEndWithTwo) {
  ChatOptions options;
  EXPECT_FALSE(ParseChatArguments({"--url", "http://h:1", "--set", "seed=4"}, options).has_value());
  EXPECT_EQ(options.url, "http://h:1");
  EXPECT_EQ(ParseChatArguments({"--help"}, options)->status, 0);
  for (const std::vector<std::string>& bad :
       {std::vector<std::string>{"--nothing"}, {"--set", "seed=x"}, {"--url", "ftp://x"}}) {
    ChatOptions fresh;
    const auto exit = ParseChatArguments(bad, fresh);
    ASSERT_TRUE(exit.has_value());
    EXPECT_EQ(exit->status, 2);
    EXPECT_THAT(exit->output, HasSubstr("reticle chat: "));
  }
}

}  // namespace
}  // namespace reticle::server::cli
