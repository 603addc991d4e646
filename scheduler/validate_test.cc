#include "scheduler/validate.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reticle::scheduler {
namespace {

using ::testing::HasSubstr;

reticle_capabilities Everything() {
  reticle_capabilities caps{};
  caps.struct_size = sizeof(caps);
  std::snprintf(caps.device_name, sizeof(caps.device_name), "toy");
  caps.vocab_size = 100;
  caps.context_limit = 16;
  caps.features = ~0ull;
  caps.max_logprobs = 6;
  caps.max_stop_ids = 2;
  return caps;
}

Request Good() {
  Request request;
  request.prompt = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 2, 3});
  request.outputs = {std::make_shared<TokenStream>(4, nullptr)};
  return request;
}

struct Refusal {
  const char* name;
  std::function<void(Request&)> spoil;
  std::vector<std::string> said;  // field, value, limit
};

TEST(ValidateTest, AcceptsWhatTheDeviceOffers) {
  Request request = Good();
  EXPECT_TRUE(ValidateRequest(request, Everything()).ok());
  EXPECT_TRUE(ValidateOutputs(request).ok());
  request.sampling = {.temperature = 0.5f,
                      .top_k = 100,
                      .top_p = 0.9f,
                      .min_p = 0.1f,
                      .repetition_penalty = 1.1f,
                      .frequency_penalty = -1,
                      .presence_penalty = 2,
                      .min_tokens = 16,
                      .stop_ids = {7, 99},
                      .logit_bias = {{4, 1.0f}, {5, -100.0f}},
                      .logprobs = 5,
                      .prompt_logprobs = 0};
  EXPECT_TRUE(ValidateRequest(request, Everything()).ok())
      << ValidateRequest(request, Everything());
}

TEST(ValidateTest, NamesFieldValueAndLimit) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<Refusal> refusals = {
      {"no prompt", [](Request& r) { r.prompt = nullptr; }, {"prompt", "0", "1"}},
      {"empty prompt",
       [](Request& r) { r.prompt = std::make_shared<const std::vector<TokenId>>(); },
       {"prompt", "0", "1"}},
      {"long prompt",
       [](Request& r) { r.prompt = std::make_shared<const std::vector<TokenId>>(16, 1); },
       {"prompt", "16", "the context holds 16"}},
      {"unknown token",
       [](Request& r) {
         r.prompt = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 100});
       },
       {"prompt", "100", "the vocabulary has 100"}},
      {"max_tokens", [](Request& r) { r.max_tokens = 0; }, {"max_tokens", "0", "1"}},
      {"temperature", [](Request& r) { r.sampling.temperature = -0.5f; }, {"temperature", "-0.5"}},
      {"nan", [=](Request& r) { r.sampling.temperature = nan; }, {"temperature", "nan"}},
      {"infinite", [=](Request& r) { r.sampling.temperature = infinity; }, {"temperature", "inf"}},
      {"top_p 0", [](Request& r) { r.sampling.top_p = 0; }, {"top_p", "0"}},
      {"top_p 1.5", [](Request& r) { r.sampling.top_p = 1.5f; }, {"top_p", "1.5"}},
      {"top_p nan", [=](Request& r) { r.sampling.top_p = nan; }, {"top_p", "nan"}},
      {"min_p", [](Request& r) { r.sampling.min_p = 2; }, {"min_p", "2"}},
      {"repetition",
       [](Request& r) { r.sampling.repetition_penalty = 0; },
       {"repetition_penalty", "0"}},
      {"frequency",
       [=](Request& r) { r.sampling.frequency_penalty = nan; },
       {"frequency_penalty", "nan"}},
      {"presence",
       [=](Request& r) { r.sampling.presence_penalty = infinity; },
       {"presence_penalty", "inf"}},
      {"stop ids",
       [](Request& r) {
         r.sampling.stop_ids = {1, 2, 3};
       },
       {"stop_ids", "3", "2"}},
      {"stop id", [](Request& r) { r.sampling.stop_ids = {100}; }, {"stop_ids", "100"}},
      {"min_tokens", [](Request& r) { r.sampling.min_tokens = 17; }, {"min_tokens", "17", "16"}},
      {"bias token",
       [](Request& r) {
         r.sampling.logit_bias = {{100, 1.0f}};
       },
       {"logit_bias", "100"}},
      {"bias twice",
       [](Request& r) {
         r.sampling.logit_bias = {{4, 1.0f}, {4, 2.0f}};
       },
       {"logit_bias", "4", "twice"}},
      {"bias nan",
       [=](Request& r) {
         r.sampling.logit_bias = {{4, nan}};
       },
       {"logit_bias", "nan"}},
      {"logprobs", [](Request& r) { r.sampling.logprobs = 6; }, {"logprobs", "6", "5"}},
      {"prompt_logprobs",
       [](Request& r) { r.sampling.prompt_logprobs = 6; },
       {"prompt_logprobs", "6", "5"}},
  };
  for (const Refusal& refusal : refusals) {
    Request request = Good();
    refusal.spoil(request);
    const absl::Status status = ValidateRequest(request, Everything());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << refusal.name;
    for (const std::string& said : refusal.said) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(said)) << refusal.name;
    }
  }
}

TEST(ValidateTest, RefusesByNameWhatTheDeviceLacks) {
  struct Lacking {
    uint64_t feature;
    std::function<void(Request&)> use;
    const char* field;
  };
  const std::vector<Lacking> all = {
      {RETICLE_FEATURE_TEMPERATURE, [](Request& r) { r.sampling.temperature = 1; }, "temperature"},
      {RETICLE_FEATURE_TOP_P, [](Request& r) { r.sampling.top_p = 0.5f; }, "top_p"},
      {RETICLE_FEATURE_MIN_P, [](Request& r) { r.sampling.min_p = 0.5f; }, "min_p"},
      {RETICLE_FEATURE_PENALTIES, [](Request& r) { r.sampling.repetition_penalty = 2; },
       "repetition_penalty"},
      {RETICLE_FEATURE_PENALTIES, [](Request& r) { r.sampling.frequency_penalty = 2; },
       "frequency_penalty"},
      {RETICLE_FEATURE_PENALTIES, [](Request& r) { r.sampling.presence_penalty = 2; },
       "presence_penalty"},
      {RETICLE_FEATURE_MIN_TOKENS, [](Request& r) { r.sampling.min_tokens = 2; }, "min_tokens"},
      {RETICLE_FEATURE_LOGIT_BIAS,
       [](Request& r) {
         r.sampling.logit_bias = {{4, 1.0f}};
       },
       "logit_bias"},
      {RETICLE_FEATURE_LOGPROBS, [](Request& r) { r.sampling.logprobs = 1; }, "logprobs"},
      {RETICLE_FEATURE_PROMPT_LOGPROBS, [](Request& r) { r.sampling.prompt_logprobs = 1; },
       "prompt_logprobs"},
  };
  for (const Lacking& lacking : all) {
    Request request = Good();
    request.sampling.temperature = 0;
    reticle_capabilities caps = Everything();
    caps.features &= ~lacking.feature;
    ASSERT_TRUE(ValidateRequest(request, caps).ok());
    lacking.use(request);
    const absl::Status status = ValidateRequest(request, caps);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << lacking.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(lacking.field));
    EXPECT_THAT(std::string(status.message()), HasSubstr("toy"));
  }
}

TEST(ValidateTest, TopKHasTheDevicesLimit) {
  reticle_capabilities caps = Everything();
  caps.max_top_k = 40;
  Request request = Good();
  EXPECT_TRUE(ValidateRequest(request, caps).ok()) << "not asked for: the device's limit is taken";
  request.sampling.top_k = 40;
  EXPECT_TRUE(ValidateRequest(request, caps).ok());
  request.sampling.top_k = 41;
  const std::string message(ValidateRequest(request, caps).message());
  EXPECT_THAT(message, HasSubstr("top_k is 41"));
  EXPECT_THAT(message, HasSubstr("40"));
}

TEST(ValidateTest, StreamsMustBeThere) {
  Request request = Good();
  request.outputs = {};
  EXPECT_THAT(std::string(ValidateOutputs(request).message()), HasSubstr("outputs holds 0"));
  request.outputs = {nullptr};
  EXPECT_FALSE(ValidateOutputs(request).ok());
  request.outputs = {std::make_shared<TokenStream>(1, nullptr)};
  EXPECT_TRUE(ValidateOutputs(request).ok());
  request.sampling.prompt_logprobs = 0;
  EXPECT_FALSE(ValidateOutputs(request).ok());
}

}  // namespace
}  // namespace reticle::scheduler
