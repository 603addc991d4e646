// The bytes of the null server's replies, in the framing of `reticle serve`.
#ifndef RETICLE_LOADTEST_NULL_REPLY_H_
#define RETICLE_LOADTEST_NULL_REPLY_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace reticle::loadtest {

// What a request asked for.
struct NullRequest {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;
  int64_t max_tokens = 16;
  int64_t body_bytes = 0;
};

// Reads the members that matter; false when the body is no JSON object.
bool ParseNullRequest(std::string_view body, NullRequest& request);

// Made once for a kind of stream (chat or not, with usage or not); constant afterwards.
class NullReplies {
 public:
  NullReplies(const std::string& model, int64_t tokens_per_event, bool chat, bool include_usage);

  // The head of a streamed response.
  void AppendStreamHead(std::string& out) const;
  // One HTTP chunk with `events` events, the first of the stream with what precedes it.
  void AppendEvents(std::string& out, int64_t events, bool first) const;
  // The finish reason, usage when asked for, [DONE] and the end of the response.
  void AppendStreamEnd(std::string& out, const NullRequest& request) const;
  // A whole response to a request without stream.
  void AppendWhole(std::string& out, const NullRequest& request) const;

 private:
  void AppendUsage(std::string& out, const NullRequest& request) const;

  const bool chat_;
  const bool include_usage_;
  const int64_t tokens_per_event_;
  std::string stream_head_;
  std::string event_head_;  // data: {"id":...,"choices":[
  std::string whole_head_;  // {"id":...,"choices":[
  std::string event_;       // one event with text
  std::string events_;      // kBlock of them
  std::string role_;        // chat: the event before the first
};

// A response that is not a completion.
void AppendPlainResponse(std::string& out, std::string_view status, std::string_view body);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_NULL_REPLY_H_
