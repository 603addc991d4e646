#include "base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace reticle {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

std::string Body(LogFormat format, std::string_view message,
                 const std::vector<LogField>& fields = {}) {
  std::string out;
  AppendLogBody(format, message, fields, out);
  return out;
}

TEST(LogFormatTest, WritesEachKindOfValue) {
  const std::vector<LogField> fields = {{"id", std::string_view("a-1")},
                                        {"tokens", int64_t{12}},
                                        {"ms", 1.23456},
                                        {"admitted", true},
                                        {"note", std::string_view("two words")},
                                        {"none", std::string_view()}};
  EXPECT_EQ(Body(LogFormat::kLogfmt, "request", fields),
            R"(msg=request id=a-1 tokens=12 ms=1.235 admitted=true note="two words" none="")");
  EXPECT_EQ(Body(LogFormat::kJson, "request", fields),
            R"("msg":"request","id":"a-1","tokens":12,"ms":1.235,"admitted":true,)"
            R"("note":"two words","none":"")");
  EXPECT_EQ(Body(LogFormat::kText, "a \"b\" c", {{"n", int64_t{-3}}}), "a \"b\" c n=-3");
}

TEST(LogFormatTest, NothingBreaksOutOfItsValue) {
  const std::string evil = "x\"y\\z\n\x01\x7f= \xff\xc3\xa9\xed\xa0\x80\xf0\x9f";
  for (const LogFormat format : {LogFormat::kText, LogFormat::kLogfmt, LogFormat::kJson}) {
    const std::string body = Body(format, evil, {{"v", std::string_view(evil)}});
    for (const char c : body) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
    EXPECT_THAT(body, HasSubstr(R"("x\"y\\z\n\u0001\u007f= )"
                                "\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd"));
    EXPECT_THAT(body, Not(HasSubstr("\xff")));
    EXPECT_THAT(body, Not(HasSubstr("\xed\xa0")));
    EXPECT_THAT(body, EndsWith("\""));
  }
}

TEST(LogTest, LevelsAndFormatsHaveNames) {
  for (const LogLevel level :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError, LogLevel::kOff}) {
    EXPECT_EQ(*ParseLogLevel(LogLevelName(level)), level);
  }
  EXPECT_THAT(std::string(ParseLogLevel("loud").status().message()), HasSubstr("loud"));
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_THAT(std::string(ParseLogFormat("xml").status().message()), HasSubstr("xml"));
}

// Takes the place of standard error: a pipe that nobody reads unless asked.
class StalledStderr {
 public:
  StalledStderr() {
    EXPECT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    saved_ = dup(STDERR_FILENO);
    EXPECT_GE(dup2(pipe_[1], STDERR_FILENO), 0);
  }
  ~StalledStderr() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
    close(pipe_[1]);
    if (reader_.joinable()) reader_.join();
    close(pipe_[0]);
  }
  // Reads on, until this is gone.
  void Read() {
    reader_ = std::thread([this] {
      char bytes[4096];
      ssize_t count;
      while ((count = read(pipe_[0], bytes, sizeof(bytes))) > 0) {
        text_.append(bytes, static_cast<size_t>(count));
      }
    });
  }
  // Once nothing more is logged.
  std::string Take() {
    fflush(stderr);
    dup2(saved_, STDERR_FILENO);
    close(pipe_[1]);
    pipe_[1] = dup(saved_);
    reader_.join();
    return text_;
  }

 private:
  int pipe_[2] = {-1, -1};
  int saved_ = -1;
  std::thread reader_;
  std::string text_;
};

size_t Count(const std::string& text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(LogTest, APlaceWritesItsShareAndThenSaysWhatItLeftOut) {
  StalledStderr out;
  out.Read();
  const uint64_t before = CountLog().suppressed;
  constexpr int kLines = 500;
  for (int i = 0; i < kLines; ++i) LogWarning("the same place %d", i);
  LogWarning("another place");
  const uint64_t suppressed = CountLog().suppressed - before;
  // The second may have turned once on the way.
  EXPECT_GE(suppressed, static_cast<uint64_t>(kLines - 2 * kLinesASecond));
  const int64_t end_ns = Clock::Monotonic().NowNanos() + 1'100'000'000;
  while (Clock::Monotonic().NowNanos() < end_ns) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ReportSuppressedLines();
  const std::string text = out.Take();
  EXPECT_EQ(Count(text, "the same place") - Count(text, "site="), kLines - suppressed);
  EXPECT_THAT(text, HasSubstr("another place"));
  EXPECT_THAT(text, HasSubstr("suppressed="));
}

// The last test: the log stays asynchronous.
TEST(LogTest, ZStalledStandardErrorStallsNobodyAndLossesAreCounted) {
  StartLog({.format = LogFormat::kJson, .asynchronous = true, .queue_lines = 256});
  constexpr int64_t kLines = 20'000;
  StalledStderr out;
  const LogCounts before = CountLog();
  const std::string filler(200, 'x');
  // Many times what pipe and queue hold: a caller that waited would wait for ever.
  for (int64_t i = 0; i < kLines; ++i) {
    const LogField fields[] = {{"number", i}, {"filler", std::string_view(filler)}};
    LogEvent(LogLevel::kInfo, "line", fields);
  }
  EXPECT_FALSE(FlushLog(1'000'000));
  const uint64_t dropped = CountLog().dropped - before.dropped;
  EXPECT_GT(dropped, 15'000u);
  out.Read();
  EXPECT_TRUE(FlushLog(60'000'000'000));
  const std::string text = out.Take();
  EXPECT_EQ(Count(text, "\"msg\":\"line\""), static_cast<size_t>(kLines) - dropped);
  EXPECT_THAT(text, HasSubstr(R"("level":"info","msg":"line","number":19999,"filler":"xxx)"));
}

}  // namespace
}  // namespace reticle
