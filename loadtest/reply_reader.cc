#include "loadtest/reply_reader.h"

#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr size_t kMaxMessage = 300;

}  // namespace

void ReplyReader::Begin(Request& request) {
  request_ = &request;
  http_.Reset();
  sse_.Reset();
  body_.clear();
  streaming_ = false;
  done_ = false;
  stop_ = false;
  new_events_ = 0;
}

void ReplyReader::Fail(ErrorKind kind, std::string_view message) {
  stop_ = true;
  Outcome& outcome = request_->outcome;
  if (outcome.error != ErrorKind::kNone) return;
  outcome.error = kind;
  outcome.message = std::string(message.substr(0, kMaxMessage));
}

void ReplyReader::TakeHead(const HttpHead& head) {
  streaming_ = request_->stream && head.status == 200 && head.event_stream;
  request_->outcome.retry_after_s = head.retry_after_s;
}

bool ReplyReader::TakeEvent(std::string_view payload) {
  const Chunk chunk = chunks_.Read(payload);
  Outcome& outcome = request_->outcome;
  switch (chunk.kind) {
    case Chunk::Kind::kText:
      ++new_events_;
      if (request_->keep_text) AppendJsonUnescaped(outcome.text, chunk.text);
      break;
    case Chunk::Kind::kOther:
      break;
    case Chunk::Kind::kDone:
      done_ = true;
      return true;
    case Chunk::Kind::kError:
      Fail(ErrorKind::kErrorEvent, chunk.error_message);
      return false;
    case Chunk::Kind::kMalformed:
      Fail(ErrorKind::kMalformed, "an event that is no completion chunk");
      return false;
  }
  if (chunk.finish != FinishReason::kNone) outcome.finish = chunk.finish;
  if (chunk.usage.present) outcome.usage = chunk.usage;
  if (request_->disconnect_after_events > 0 &&
      outcome.events + new_events_ >= request_->disconnect_after_events) {
    outcome.disconnected = true;
    stop_ = true;
    return false;
  }
  return true;
}

bool ReplyReader::TakeBody(std::string_view piece) {
  if (streaming_) {
    sse_.Feed(piece, [this](std::string_view payload) { return TakeEvent(payload); });
    if (sse_.failed()) Fail(ErrorKind::kMalformed, "an event longer than 16 MiB");
  } else {
    body_.append(piece);
    if (body_.size() > kMaxBodyBytes) Fail(ErrorKind::kMalformed, "a body longer than 256 MiB");
  }
  return !stop_;
}

void ReplyReader::Complete(int64_t now_ns, Recorder& recorder) {
  Outcome& outcome = request_->outcome;
  if (outcome.end_ns == 0) outcome.end_ns = now_ns;
  if (stop_) return;
  if (streaming_) {
    if (!done_) {
      Fail(sse_.incomplete() ? ErrorKind::kMalformed : ErrorKind::kClosed,
           "the stream ended without [DONE]");
    }
    return;
  }
  const Chunk reply = ReadWholeReply(body_);
  if (http_.head().status != 200) {
    outcome.code = http_.head().status;
    Fail(ErrorKind::kHttpStatus, reply.error_message);
    return;
  }
  if (reply.kind == Chunk::Kind::kError) return Fail(ErrorKind::kErrorEvent, reply.error_message);
  if (reply.kind == Chunk::Kind::kMalformed) {
    return Fail(ErrorKind::kMalformed, "a body that is no completion");
  }
  outcome.finish = reply.finish;
  outcome.usage = reply.usage;
  if (reply.kind == Chunk::Kind::kText) {
    recorder.Events(outcome, now_ns, 1);
    if (request_->keep_text) AppendJsonUnescaped(outcome.text, reply.text);
  }
}

ReplyReader::Result ReplyReader::Feed(std::string_view data, int64_t now_ns, Recorder& recorder) {
  Outcome& outcome = request_->outcome;
  outcome.bytes += static_cast<int64_t>(data.size());
  const size_t taken = http_.Feed(
      data, [this](const HttpHead& head) { TakeHead(head); },
      [this](std::string_view piece) { return TakeBody(piece); });
  if (new_events_ > 0) {
    recorder.Events(outcome, now_ns, new_events_);
    new_events_ = 0;
  }
  if (done_ && outcome.end_ns == 0) outcome.end_ns = now_ns;
  if (http_.state() == HttpReader::State::kFailed) Fail(ErrorKind::kMalformed, http_.error());
  if (stop_) {
    outcome.end_ns = now_ns;
    return Result::kDoneClose;
  }
  if (http_.state() != HttpReader::State::kDone) return Result::kMore;
  Complete(now_ns, recorder);
  return http_.head().keep_alive && taken == data.size() ? Result::kDone : Result::kDoneClose;
}

void ReplyReader::FeedEnd(int64_t now_ns, Recorder& recorder) {
  http_.FeedEnd();
  if (http_.state() == HttpReader::State::kDone) {
    Complete(now_ns, recorder);
    return;
  }
  // All that matters had come; only the end of the framing is missing.
  if (streaming_ && done_) return;
  Fail(ErrorKind::kClosed, "the server closed before the reply was complete");
  request_->outcome.end_ns = now_ns;
}

}  // namespace reticle::loadtest
