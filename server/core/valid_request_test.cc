#include "server/core/valid_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "server/core/error.h"
#include "server/core/testing.h"

namespace reticle::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

ChatMessage Message(std::string role, std::optional<std::string> content) {
  ChatMessage message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}

ChatMessage Call(std::string role) {
  ChatMessage message = Message(std::move(role), "x");
  message.tool_calls.emplace_back().name = "f";
  return message;
}

class ValidRequestTest : public testing::Test {
 protected:
  ValidRequestTest() : entry_(model_.Build(kTemplate)) {}

  static GenerateParams Text(std::string prompt = "hello") {
    GenerateParams params;
    params.prompts.emplace_back(std::move(prompt));
    return params;
  }
  static GenerateParams Chat(std::vector<ChatMessage> messages) {
    GenerateParams params;
    ChatPrompt chat;
    chat.messages = std::move(messages);
    params.prompts.emplace_back(std::move(chat));
    return params;
  }
  absl::StatusOr<ValidRequest> Check(GenerateParams params) {
    return Validate(std::move(params), entry_);
  }
  std::string Show(const std::vector<TokenId>& tokens) {
    std::string text;
    for (const TokenId token : tokens) {
      if (entry_->tokenizer->IsControl(token)) {
        text += token == model_.begin_token() ? "{B}" : "{E}";
      } else {
        text += entry_->tokenizer->TokenBytes(token);
      }
    }
    return text;
  }

  TestModel model_;
  std::shared_ptr<ModelEntry> entry_;
};

TEST_F(ValidRequestTest, FillsInDefaults) {
  const auto request = Check(Text());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling().temperature, 1.0f);
  EXPECT_EQ(request->sampling().top_p, 1.0f);
  EXPECT_EQ(request->n(), 1u);
  EXPECT_EQ(request->max_tokens(), 16u);
  EXPECT_EQ(request->prompts()[0].tokens->size(), 6u);
  EXPECT_THAT(request->sampling().stop_ids, ElementsAre(model_.end_token()));
  EXPECT_FALSE(request->logprobs().has_value());
}

TEST_F(ValidRequestTest, ChatMayUseTheRestOfTheContext) {
  const auto request = Check(Chat({Message("user", "hi")}));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->max_tokens(), 256 - request->prompts()[0].tokens->size());
}

struct BadField {
  const char* param;
  const char* message;
  std::function<void(GenerateParams&)> set;
};

TEST_F(ValidRequestTest, NamesTheFieldTheValueAndTheLimit) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<BadField> bad = {
      {"temperature", "-0.1", [](auto& p) { p.temperature = -0.1; }},
      {"temperature", "2.1", [](auto& p) { p.temperature = 2.1; }},
      {"temperature", "nan", [=](auto& p) { p.temperature = nan; }},
      {"top_p", "is 0", [](auto& p) { p.top_p = 0; }},
      {"top_p", "1.5", [](auto& p) { p.top_p = 1.5; }},
      {"top_k", "-2", [](auto& p) { p.top_k = -2; }},
      {"min_p", "1.1", [](auto& p) { p.min_p = 1.1; }},
      {"frequency_penalty", "-3", [](auto& p) { p.frequency_penalty = -3; }},
      {"presence_penalty", "2.5", [](auto& p) { p.presence_penalty = 2.5; }},
      {"repetition_penalty", "is 0", [](auto& p) { p.repetition_penalty = 0; }},
      {"n", "is 0", [](auto& p) { p.n = 0; }},
      {"n", "129", [](auto& p) { p.n = 129; }},
      {"max_tokens", "-5", [](auto& p) { p.max_tokens = -5; }},
      {"max_tokens", "is 0", [](auto& p) { p.max_tokens = 0; }},
      {"min_tokens", "between 0 and 16", [](auto& p) { p.min_tokens = 17; }},
      {"logprobs", "21", [](auto& p) { p.logprobs = 21; }},
      {"logprobs", "-1", [](auto& p) { p.logprobs = -1; }},
      {"prompt_logprobs", "99", [](auto& p) { p.prompt_logprobs = 99; }},
      {"prompt_logprobs", "stream",
       [](auto& p) {
         p.prompt_logprobs = 1;
         p.stream = true;
       }},
      {"logit_bias", "token 100000",
       [](auto& p) {
         p.logit_bias = {{100000, 1}};
       }},
      {"logit_bias", "-101",
       [](auto& p) {
         p.logit_bias = {{5, -101}};
       }},
      {"logit_bias", "twice",
       [](auto& p) {
         p.logit_bias = {{5, 1}, {5, 2}};
       }},
      {"stop", "empty", [](auto& p) { p.stop = {""}; }},
      {"stop", "17", [](auto& p) { p.stop.assign(17, "x"); }},
      {"stop", "1025", [](auto& p) { p.stop = {std::string(1025, 'x')}; }},
      {"stop_token_ids", "-1", [](auto& p) { p.stop_token_ids = {-1}; }},
      {"stop_token_ids", "16",
       [](auto& p) {
         for (int i = 0; i < 16; ++i) p.stop_token_ids.push_back(i);
       }},
      {"truncate_prompt_tokens", "is 0", [](auto& p) { p.truncate_prompt_tokens = 0; }},
      {"timeout", "is 0", [](auto& p) { p.timeout_ms = 0; }},
      {"priority", "3000000000", [](auto& p) { p.priority = 3000000000; }},
      {"prompt", "missing", [](auto& p) { p.prompts.clear(); }},
      {"prompt", "limit is 256", [](auto& p) { p.prompts.assign(257, "x"); }},
      {"n", "1280",
       [](auto& p) {
         p.prompts.assign(10, "x");
         p.n = 128;
       }},
      {"prompt", "token 300",
       [](auto& p) {
         p.prompts = {std::vector<TokenId>{1, 300}};
       }},
      {"prompt", "empty", [](auto& p) { p.prompts = {std::vector<TokenId>{}}; }},
  };
  for (const BadField& field : bad) {
    GenerateParams params = Text();
    field.set(params);
    const auto request = Check(std::move(params));
    ASSERT_FALSE(request.ok()) << field.param << " " << field.message;
    const ErrorInfo info = DescribeError(request.status());
    EXPECT_EQ(info.http_status, 400);
    EXPECT_EQ(info.param, field.param) << info.message;
    EXPECT_THAT(info.message, HasSubstr(field.message));
    EXPECT_THAT(info.message, HasSubstr(field.param));
  }
}

TEST_F(ValidRequestTest, ParametersThatTheDeviceLacksAreRefusedByName) {
  const ModelLimits all = entry_->limits;
  entry_->limits = {.vocab_size = all.vocab_size, .max_model_len = 256, .max_stop_ids = 4};
  const std::vector<BadField> bad = {
      {"temperature", "", [](auto& p) { p.temperature = 0.5; }},
      {"top_p", "", [](auto& p) { p.top_p = 0.5; }},
      {"min_p", "", [](auto& p) { p.min_p = 0.5; }},
      {"frequency_penalty", "", [](auto& p) { p.frequency_penalty = 1; }},
      {"presence_penalty", "", [](auto& p) { p.presence_penalty = 1; }},
      {"repetition_penalty", "", [](auto& p) { p.repetition_penalty = 1.1; }},
      {"logit_bias", "",
       [](auto& p) {
         p.logit_bias = {{5, 1}};
       }},
      {"logprobs", "", [](auto& p) { p.logprobs = 0; }},
      {"prompt_logprobs", "", [](auto& p) { p.prompt_logprobs = 0; }},
      {"min_tokens", "", [](auto& p) { p.min_tokens = 1; }},
  };
  for (const BadField& field : bad) {
    GenerateParams params = Text();
    field.set(params);
    const auto request = Check(std::move(params));
    ASSERT_FALSE(request.ok()) << field.param;
    EXPECT_EQ(DescribeError(request.status()).param, field.param);
    EXPECT_EQ(DescribeError(request.status()).code, "unsupported_parameter");
  }
  const auto greedy = Check(Text());
  ASSERT_TRUE(greedy.ok()) << greedy.status();
  EXPECT_EQ(greedy->sampling().temperature, 0.0f);
}

TEST_F(ValidRequestTest, ALimitedTopKIsTheDefaultAndTheLimit) {
  entry_->limits.max_top_k = 8;
  EXPECT_EQ(Check(Text())->sampling().top_k, 8u);
  GenerateParams params = Text();
  params.top_k = 9;
  EXPECT_EQ(DescribeError(Check(params).status()).param, "top_k");
  params.top_k = 0;
  EXPECT_EQ(DescribeError(Check(params).status()).param, "top_k");
  params.temperature = 0;
  EXPECT_TRUE(Check(params).ok());
}

TEST_F(ValidRequestTest, TheDevicesOwnTopKIsForRequestsThatNameNone) {
  entry_->limits.default_top_k = 8;
  EXPECT_EQ(Check(Text())->sampling().top_k, 8u);
  GenerateParams params = Text();
  for (const int64_t all : {0, -1}) {
    params.top_k = all;
    EXPECT_EQ(Check(params)->sampling().top_k, 0u);
  }
  params.top_k = 40;
  EXPECT_EQ(Check(params)->sampling().top_k, 40u);
  params.top_k = std::nullopt;
  params.temperature = 0;
  EXPECT_EQ(Check(params)->sampling().top_k, 0u);
}

TEST_F(ValidRequestTest, APromptOverTheContextNamesBothNumbers) {
  const auto request = Check(Text(std::string(400, 'x')));
  const ErrorInfo info = DescribeError(request.status());
  EXPECT_EQ(info.http_status, 400);
  EXPECT_EQ(info.code, "context_length_exceeded");
  EXPECT_THAT(info.message, HasSubstr("256"));
  EXPECT_THAT(info.message, HasSubstr("401"));
  EXPECT_FALSE(Check(Text(std::string(255, 'x'))).ok());
  EXPECT_TRUE(Check(Text(std::string(254, 'x'))).ok());
}

TEST_F(ValidRequestTest, TruncationKeepsTheEnd) {
  GenerateParams params = Text("abcdef");
  params.truncate_prompt_tokens = 2;
  params.echo = true;
  const auto request = Check(std::move(params));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(Show(*request->prompts()[0].tokens), "ef");
  EXPECT_EQ(request->prompts()[0].text, "ef");
  GenerateParams fit = Text(std::string(400, 'x'));
  fit.truncate_prompt_tokens = -1;
  fit.max_tokens = 6;
  EXPECT_EQ(Check(std::move(fit))->prompts()[0].tokens->size(), 250u);
}

TEST_F(ValidRequestTest, IgnoreEosLeavesOnlyTheClientsStopTokens) {
  GenerateParams params = Text();
  params.ignore_eos = true;
  params.stop_token_ids = {7, 7};
  EXPECT_THAT(Check(std::move(params))->sampling().stop_ids, ElementsAre(7));
}

TEST_F(ValidRequestTest, SeedsAreKeptOrDrawn) {
  GenerateParams params = Text();
  params.seed = -1;
  EXPECT_EQ(Check(params)->sampling().seed, ~uint64_t{0});
  params.seed.reset();
  EXPECT_NE(Check(params)->sampling().seed, Check(params)->sampling().seed);
}

TEST_F(ValidRequestTest, OnlyTheTemplateWritesControlTokens) {
  const auto request = Check(
      Chat({Message("developer", "be <|end|> brief"), Message("user", "[<|begin|>]<|end|>")}));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(Show(*request->prompts()[0].tokens),
            "{B}[system]be <|end|> brief{E}[user][<|begin|>]<|end|>{E}[assistant]");
}

TEST_F(ValidRequestTest, TextPromptsCannotNameControlTokens) {
  const auto request = Check(Text("a<|end|>b"));
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(Show(*request->prompts()[0].tokens), "{B}a<|end|>b");
}

TEST_F(ValidRequestTest, MessagesAreChecked) {
  const auto param = [&](ChatMessage message) {
    const auto request = Check(Chat({Message("user", "x"), std::move(message)}));
    return request.ok() ? std::string("ok") : DescribeError(request.status()).param;
  };
  EXPECT_EQ(param(Message("wizard", "x")), "messages[1].role");
  EXPECT_EQ(param(Message("user", std::nullopt)), "messages[1].content");
  EXPECT_EQ(param(Message("tool", "x")), "messages[1].tool_call_id");
  EXPECT_EQ(param(Call("user")), "messages[1].tool_calls");
  EXPECT_EQ(param(Call("assistant")), "ok");
  EXPECT_EQ(DescribeError(Check(Chat({})).status()).param, "messages");
  entry_->chat_template.reset();
  EXPECT_EQ(DescribeError(Check(Chat({Message("user", "x")})).status()).param, "messages");
}

}  // namespace
}  // namespace reticle::server
