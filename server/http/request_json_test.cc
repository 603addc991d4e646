#include "server/http/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "server/core/error.h"

namespace reticle::server::http {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(RequestJsonTest, EveryFieldOfACompletion) {
  const auto body = ParseCompletionBody(R"({
    "model": "m", "prompt": "p", "stream": true,
    "stream_options": {"include_usage": true, "continuous_usage_stats": true, "merge_events": true},
    "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "frequency_penalty": 1,
    "presence_penalty": -1, "repetition_penalty": 1.5, "seed": -7, "logit_bias": {"5": -100},
    "max_tokens": 9, "min_tokens": 2, "stop": "s", "stop_token_ids": [1, 2], "ignore_eos": true,
    "include_stop_str_in_output": true, "truncate_prompt_tokens": -1, "n": 3, "best_of": 3,
    "logprobs": 4, "prompt_logprobs": 5, "echo": true, "skip_special_tokens": false,
    "add_special_tokens": false, "priority": -2, "user": "u", "suffix": null})");
  ASSERT_TRUE(body.ok()) << body.status();
  const GenerateParams& p = body->params;
  EXPECT_EQ(p.model, "m");
  ASSERT_EQ(p.prompts.size(), 1u);
  EXPECT_EQ(std::get<std::string>(p.prompts[0]), "p");
  EXPECT_TRUE(p.stream && body->include_usage && body->continuous_usage_stats);
  EXPECT_EQ(p.temperature, 0.5);
  EXPECT_EQ(p.top_p, 0.25);
  EXPECT_EQ(p.top_k, 3);
  EXPECT_EQ(p.min_p, 0.125);
  EXPECT_EQ(p.frequency_penalty, 1);
  EXPECT_EQ(p.presence_penalty, -1);
  EXPECT_EQ(p.repetition_penalty, 1.5);
  EXPECT_EQ(p.seed, -7);
  EXPECT_THAT(p.logit_bias, ElementsAre(Pair(5, -100)));
  EXPECT_EQ(p.max_tokens, 9);
  EXPECT_EQ(p.min_tokens, 2);
  EXPECT_THAT(p.stop, ElementsAre("s"));
  EXPECT_THAT(p.stop_token_ids, ElementsAre(1, 2));
  EXPECT_TRUE(p.ignore_eos && p.include_stop_str_in_output && p.echo);
  EXPECT_EQ(p.truncate_prompt_tokens, -1);
  EXPECT_EQ(p.n, 3);
  EXPECT_EQ(p.logprobs, 4);
  EXPECT_EQ(p.prompt_logprobs, 5);
  EXPECT_FALSE(p.skip_special_tokens);
  EXPECT_EQ(p.add_special_tokens, false);
  EXPECT_EQ(p.priority, -2);
}

TEST(RequestJsonTest, NullIsAbsent) {
  const auto body = ParseCompletionBody(
      R"({"prompt":"p","temperature":null,"stop":null,"n":null,"stream":null,"logit_bias":null,
          "logprobs":null,"guided_json":null,"stream_options":null,"best_of":null})");
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_FALSE(body->params.temperature.has_value());
  EXPECT_FALSE(body->params.n.has_value());
}

TEST(RequestJsonTest, PromptsOfEveryKind) {
  const auto count = [](const char* prompt) {
    return ParseCompletionBody(absl::StrFormat(R"({"prompt":%s})", prompt))->params.prompts.size();
  };
  EXPECT_EQ(count(R"("a")"), 1u);
  EXPECT_EQ(count(R"(["a","b","c"])"), 3u);
  EXPECT_EQ(count("[1,2,3]"), 1u);
  EXPECT_EQ(count("[[1],[2]]"), 2u);
  EXPECT_EQ(count(R"(["a",[2]])"), 2u);
  EXPECT_EQ(count("[]"), 0u);
}

TEST(RequestJsonTest, ChatWithPartsAndToolCalls) {
  const auto body = ParseChatBody(R"({
    "messages": [
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": " {\"x\":1}"}}],
       "refusal": null},
      {"role": "tool", "tool_call_id": "1", "content": "2", "name": "f"}],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 5})");
  ASSERT_TRUE(body.ok()) << body.status();
  const auto& chat = std::get<ChatPrompt>(body->params.prompts[0]);
  EXPECT_EQ(chat.messages[0].content, "a\nb");
  EXPECT_FALSE(chat.messages[1].content.has_value());
  EXPECT_EQ(chat.messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(chat.messages[2].tool_call_id, "1");
  EXPECT_FALSE(chat.tools.is_undefined());
  EXPECT_EQ(body->params.logprobs, 2);
  EXPECT_EQ(body->params.max_tokens, 5);
}

TEST(RequestJsonTest, ToolChoiceNoneLeavesTheToolsOut) {
  const auto body = ParseChatBody(
      R"({"messages":[{"role":"user","content":"x"}],"tool_choice":"none",
          "tools":[{"type":"function","function":{"name":"f"}}]})");
  ASSERT_TRUE(body.ok());
  EXPECT_TRUE(std::get<ChatPrompt>(body->params.prompts[0]).tools.is_undefined());
}

TEST(RequestJsonTest, NothingIsIgnoredSilently) {
  const auto refused = [](const char* field) {
    const auto body =
        ParseChatBody(absl::StrFormat(R"({"messages":[{"role":"user","content":"x"}],%s})", field));
    return body.ok() ? std::string("accepted") : DescribeError(body.status()).param;
  };
  EXPECT_EQ(refused(R"("guided_choice":["a"])"), "guided_choice");
  EXPECT_EQ(refused(R"("guided_grammar":"a")"), "guided_grammar");
  EXPECT_EQ(refused(R"("response_format":{"type":"json_schema"})"), "response_format");
  EXPECT_EQ(refused(R"("response_format":{})"), "response_format.type");
  EXPECT_EQ(refused(R"("tool_choice":"required")"), "tool_choice");
  EXPECT_EQ(refused(R"("tool_choice":{"type":"function"})"), "tool_choice");
  EXPECT_EQ(refused(R"("audio":{})"), "audio");
  EXPECT_EQ(refused(R"("reasoning_effort":"low")"), "reasoning_effort");
  EXPECT_EQ(refused(R"("use_beam_search":true)"), "use_beam_search");
  EXPECT_EQ(refused(R"("tempurature":1)"), "tempurature");
  EXPECT_EQ(refused(R"("prompt":"x")"), "prompt");
  EXPECT_EQ(refused(R"("echo":true)"), "echo");
  EXPECT_EQ(refused(R"("max_tokens":1,"max_completion_tokens":2)"), "max_completion_tokens");
  EXPECT_EQ(refused(R"("stream_options":{"include_usage":true})"), "stream_options");
  EXPECT_EQ(refused(R"("stream":true,"stream_options":{"x":1})"), "stream_options.x");
  EXPECT_EQ(refused(R"("use_beam_search":false,"echo":false,"modalities":["text"])"), "accepted");
  EXPECT_EQ(refused(R"("modalities":"text")"), "modalities");
}

TEST(RequestJsonTest, MessagesNameTheirPlace) {
  const auto refused = [](const char* message) {
    const auto body = ParseChatBody(absl::StrFormat(R"({"messages":[%s]})", message));
    return body.ok() ? std::string("accepted") : DescribeError(body.status()).param;
  };
  EXPECT_EQ(refused("1"), "messages[0]");
  EXPECT_EQ(refused(R"({"content":"x"})"), "messages[0].role");
  EXPECT_EQ(refused(R"({"role":"user","content":1})"), "messages[0].content");
  EXPECT_EQ(refused(R"({"role":"user","content":[{"type":"image_url"}]})"),
            "messages[0].content[0].type");
  EXPECT_EQ(refused(R"({"role":"user","content":"x","color":"red"})"), "messages[0].color");
  EXPECT_EQ(refused(R"({"role":"assistant","tool_calls":[{"function":{"name":"f",
                        "arguments":"[1]"}}]})"),
            "messages[0].tool_calls[0].function.arguments");
  EXPECT_EQ(refused(R"({"role":"assistant","tool_calls":[{"function":{"name":"f",
                        "arguments":"{\"a\":"}}]})"),
            "messages[0].tool_calls[0].function.arguments");
}

TEST(RequestJsonTest, TokenizeTakesOneOfTwo) {
  EXPECT_TRUE(ParseTokenizeBody(R"({"prompt":"x"})").ok());
  EXPECT_TRUE(ParseTokenizeBody(R"({"messages":[{"role":"user","content":"x"}]})").ok());
  EXPECT_FALSE(ParseTokenizeBody("{}").ok());
  EXPECT_FALSE(ParseTokenizeBody(R"({"prompt":"x","messages":[]})").ok());
  EXPECT_FALSE(ParseDetokenizeBody("{}").ok());
  EXPECT_THAT(ParseDetokenizeBody(R"({"tokens":[1,2.0]})")->tokens, ElementsAre(1, 2));
}

}  // namespace
}  // namespace reticle::server::http
