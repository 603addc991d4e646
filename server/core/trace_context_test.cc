#include "server/core/trace_context.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace reticle::server {
namespace {

constexpr char kGood[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, GoesOnWithTheCallersTrace) {
  const TraceContext context = BeginTrace(kGood, 0);
  EXPECT_EQ(context.TraceIdHex(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_TRUE(context.has_parent());
  EXPECT_TRUE(context.sampled);
  std::string parent;
  AppendHex(context.parent_id.data(), context.parent_id.size(), parent);
  EXPECT_EQ(parent, "00f067aa0ba902b7");
  std::string own;
  AppendHex(context.span_id.data(), context.span_id.size(), own);
  EXPECT_NE(own, parent);
  EXPECT_EQ(context.Traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-" + own + "-01");
}

TEST(TraceContextTest, TheCallersFlagDecides) {
  std::string unsampled = kGood;
  unsampled.back() = '0';
  EXPECT_FALSE(BeginTrace(unsampled, 1).sampled);
  EXPECT_TRUE(BeginTrace(kGood, 0).sampled);
  unsampled.replace(53, 2, "fe");
  EXPECT_FALSE(BeginTrace(unsampled, 1).sampled);
  unsampled.replace(53, 2, "ff");
  EXPECT_TRUE(BeginTrace(unsampled, 0).sampled);
}

TEST(TraceContextTest, WhatTheStandardForbidsBeginsANewTrace) {
  const std::string bad[] = {
      "",
      "00",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
      "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
      "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
      "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
      "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
      "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
      " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0 ",
  };
  for (const std::string& header : bad) {
    TraceContext untouched;
    EXPECT_FALSE(ParseTraceparent(header, untouched)) << header;
    EXPECT_EQ(untouched.trace_id, TraceContext().trace_id) << header;
    const TraceContext context = BeginTrace(header, 0);
    EXPECT_FALSE(context.has_parent()) << header;
    EXPECT_FALSE(context.sampled) << header;
    EXPECT_NE(context.trace_id, TraceContext().trace_id) << header;
    TraceContext again;
    EXPECT_TRUE(ParseTraceparent(context.Traceparent(), again)) << header;
  }
}

TEST(TraceContextTest, LaterVersionsMayHaveMore) {
  TraceContext context;
  EXPECT_TRUE(
      ParseTraceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x y", context));
  EXPECT_TRUE(ParseTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", context));
  // We answer in our own version.
  EXPECT_EQ(context.Traceparent().substr(0, 3), "00-");
}

TEST(TraceContextTest, SamplesItsShareOfNewTraces) {
  int sampled = 0;
  std::set<std::string> ids;
  for (int i = 0; i < 4000; ++i) {
    const TraceContext context = BeginTrace("", 0.25);
    sampled += context.sampled ? 1 : 0;
    ids.insert(context.TraceIdHex());
    EXPECT_FALSE(BeginTrace("", 0).sampled);
    EXPECT_TRUE(BeginTrace("", 1).sampled);
  }
  EXPECT_EQ(ids.size(), 4000u);
  // Five standard deviations.
  EXPECT_NEAR(sampled, 1000, 137);
}

TEST(TraceContextTest, PlainRequestIdsAreKept) {
  EXPECT_EQ(TakeRequestId("a-B_9.:"), "a-B_9.:");
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a\r\nb"), std::string(129, 'a')}) {
    const std::string made = TakeRequestId(bad);
    EXPECT_EQ(made.size(), 32u);
    EXPECT_TRUE(IsPlainRequestId(made));
    EXPECT_NE(made, TakeRequestId(bad));
  }
}

}  // namespace
}  // namespace reticle::server
