// Chunks of a generation to the bodies of OpenAI's chat and completions APIs: streamed events and
// whole replies. Knows JSON and SSE, not HTTP.
#ifndef RETICLE_SERVER_HTTP_COMPLETION_FORMAT_H_
#define RETICLE_SERVER_HTTP_COMPLETION_FORMAT_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/core/generation.h"

namespace reticle::server::http {

// One reply. Not thread-safe. Streams append nothing but what the caller passed; whole replies are
// collected here.
class CompletionFormat {
 public:
  struct Options {
    bool chat = false;
    bool include_usage = false;
    bool continuous_usage = false;
    std::string id;  // "chatcmpl-..." or "cmpl-..."
    int64_t created_unix_s = 0;
  };
  // `request` must outlive this.
  CompletionFormat(Options options, const ValidRequest& request);

  // ---- streams: appends `data: {...}\n\n` events
  void AppendChunk(std::string& out, const Chunk& chunk, const Usage& usage);
  // Usage, when it was asked for, and [DONE].
  void AppendStreamEnd(std::string& out, const Usage& usage);

  // ---- whole replies
  void Collect(const Chunk& chunk);
  void CollectPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens);
  void AppendBody(std::string& out, const Usage& usage) const;

 private:
  struct Collected {
    std::string text;
    // The insides of the arrays and objects of "logprobs"; the first alone for chat.
    std::string tokens, token_logprobs, top_logprobs, text_offsets;
    std::string finish;  // ,"finish_reason":...
  };

  void AppendRole(std::string& out, uint32_t choice, const Usage& usage);
  void AppendEventTail(std::string& out, const Usage& usage) const;
  void AppendLogprobs(Collected& into, const TokenOut& token) const;
  void AppendLogprobsObject(std::string& out, const Collected& from) const;
  void AppendFinish(std::string& out, const Chunk& chunk) const;
  void AppendToken(std::string& out, TokenId token) const;
  void AppendUsage(std::string& out, const Usage& usage) const;
  void AppendPromptLogprobs(std::string& out, uint32_t prompt) const;

  const Options options_;
  const ValidRequest& request_;
  const tokenizer::Tokenizer& tokenizer_;
  std::string head_;  // {"id":...,"object":...,...,"choices":[
  std::vector<Collected> collected_;
  std::vector<std::string> prompt_logprobs_;
  std::vector<bool> role_sent_;
};

// Adds the object of OpenAI's usage, with our timings beside it.
void AppendUsageJson(std::string& out, const Usage& usage);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_COMPLETION_FORMAT_H_
