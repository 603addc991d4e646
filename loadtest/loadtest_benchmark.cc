// What the client's own work costs: reading a stream, recording a time. CPU only, no sockets.
#include <benchmark/benchmark.h>

#include <string>
#include <string_view>

#include "loadtest/histogram.h"
#include "loadtest/null_reply.h"
#include "loadtest/recorder.h"
#include "loadtest/reply_reader.h"

namespace reticle::loadtest {
namespace {

// Events a second out of a stream of 10,000 that comes in pieces of range(1) bytes; range(0) events
// share an HTTP chunk.
void BM_ReadStream(benchmark::State& state) {
  constexpr int64_t kEvents = 10'000;
  const NullReplies replies("house", 1, true, true);
  std::string wire;
  replies.AppendStreamHead(wire);
  for (int64_t sent = 0; sent < kEvents; sent += state.range(0)) {
    replies.AppendEvents(wire, state.range(0), sent == 0);
  }
  replies.AppendStreamEnd(wire, {.chat = true, .include_usage = true, .max_tokens = kEvents});
  const size_t piece = static_cast<size_t>(state.range(1));
  Recorder recorder(Recorder::Options{});
  ReplyReader reader;
  int64_t events = 0;
  for (auto _ : state) {
    Request request;
    reader.Begin(request);
    for (size_t at = 0; at < wire.size(); at += piece) {
      reader.Feed(std::string_view(wire).substr(at, piece), 1, recorder);
    }
    events += request.outcome.events;
  }
  state.SetItemsProcessed(events);
  state.SetBytesProcessed(static_cast<int64_t>(wire.size()) * state.iterations());
}
BENCHMARK(BM_ReadStream)->Args({1, 1 << 18})->Args({50, 1 << 18})->Args({1, 1448});

void BM_Record(benchmark::State& state) {
  Histogram histogram;
  int64_t value = 1;
  for (auto _ : state) {
    histogram.Record(value);
    value = value * 5 % 1'000'003;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Record);

}  // namespace
}  // namespace reticle::loadtest
