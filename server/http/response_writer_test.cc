#include "server/http/response_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/retry_after.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/http/request_target.h"

namespace reticle::server::http {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TEST(ResponseWriterTest, WholeReply) {
  ResponseWriter writer;
  writer.Begin({.request_id = "id-1"});
  writer.Send(200, "text/plain", "hello", "X-Extra: 1\r\n");
  EXPECT_THAT(writer.buffer(), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(writer.buffer(), HasSubstr("\r\nx-request-id: id-1\r\n"));
  EXPECT_THAT(writer.buffer(), HasSubstr("\r\nX-Extra: 1\r\nContent-Length: 5\r\n\r\nhello"));
  EXPECT_THAT(writer.buffer(), Not(HasSubstr("Connection")));
  EXPECT_EQ(writer.status(), 200);
}

TEST(ResponseWriterTest, HeadKeepsTheLengthAndDropsTheBody) {
  ResponseWriter writer;
  writer.Begin({.head = true, .request_id = "x"});
  writer.Send(200, "text/plain", "hello");
  EXPECT_THAT(writer.buffer(), EndsWith("Content-Length: 5\r\n\r\n"));
}

TEST(ResponseWriterTest, ErrorsInOpenAisShape) {
  ResponseWriter writer;
  writer.Begin({.keep_alive = false, .request_id = "x"});
  writer.SendError(WithParam(InvalidArgumentError("n is \"9\""), "n"));
  EXPECT_THAT(writer.buffer(), StartsWith("HTTP/1.1 400 Bad Request\r\n"));
  EXPECT_THAT(writer.buffer(), HasSubstr("Connection: close"));
  EXPECT_THAT(
      writer.buffer(),
      EndsWith(
          R"({"error":{"message":"n is \"9\"","type":"invalid_request_error","param":"n","code":null}})"));
}

TEST(ResponseWriterTest, BusyAnswersSayWhenToComeBackIfThatIsKnown) {
  for (const absl::Status& status : {ResourceExhaustedError("x"), UnavailableError("x")}) {
    ResponseWriter writer;
    writer.Begin({.request_id = "x"});
    writer.SendError(status);
    EXPECT_THAT(writer.buffer(), Not(HasSubstr("etry-")));
    writer.Begin({.request_id = "x"});
    writer.SendError(WithRetryAfter(status, 1'500'000'001));
    EXPECT_THAT(writer.buffer(), HasSubstr("\r\nRetry-After: 2\r\nretry-after-ms: 1501\r\n"));
  }
}

TEST(ResponseWriterTest, StreamsInChunks) {
  ResponseWriter writer;
  writer.Begin({.request_id = "x"});
  writer.BeginStream("text/event-stream");
  writer.buffer().clear();
  writer.BeginChunk().append("data: 1\n\ndata: 2\n\n");
  writer.EndChunk();
  writer.BeginChunk();
  writer.EndChunk();
  writer.EndStream();
  EXPECT_EQ(writer.buffer(), "00000012\r\ndata: 1\n\ndata: 2\n\n\r\n0\r\n\r\n");
}

TEST(ResponseWriterTest, Http10StreamsEndWithTheConnection) {
  ResponseWriter writer;
  writer.Begin({.http_1_0 = true, .keep_alive = true, .request_id = "x"});
  writer.BeginStream("text/event-stream");
  EXPECT_THAT(writer.buffer(), HasSubstr("Connection: close"));
  EXPECT_THAT(writer.buffer(), Not(HasSubstr("chunked")));
  EXPECT_FALSE(writer.keep_alive());
  writer.buffer().clear();
  writer.BeginChunk().append("data: 1\n\n");
  writer.EndChunk();
  writer.EndStream();
  EXPECT_EQ(writer.buffer(), "data: 1\n\n");
}

TEST(PathOfTargetTest, DecodesAndStrips) {
  EXPECT_EQ(*PathOfTarget("/v1/models?x=1#y"), "/v1/models");
  EXPECT_EQ(*PathOfTarget("/v1/models/a%2Fb%20c"), "/v1/models/a/b c");
  EXPECT_EQ(*PathOfTarget("http://host:1/x"), "/x");
  EXPECT_EQ(*PathOfTarget("http://host"), "/");
  for (const char* bad : {"", "*", "host:443", "/%", "/%4", "/%zz", "/%00", "/%0a"}) {
    EXPECT_FALSE(PathOfTarget(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace reticle::server::http
